#include "node/doctor.h"
#include "node/doctor_viewers.h"
#include "node/test_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct conf conf;
static struct doctor_facts facts;
static char printed[16384];

/* A machine on which nothing is wrong with the conf of set_up(). */
static const char *const good[DOCTOR_SETTINGS] = {
    [DOCTOR_NR_OPEN] = "1048576",
    [DOCTOR_FILE_MAX] = "9223372036854775807",
    [DOCTOR_SOMAXCONN] = "4096",
    [DOCTOR_SYN_BACKLOG] = "4096",
    [DOCTOR_SYNCOOKIES] = "1",
    [DOCTOR_TCP_MEM] = "75000 100000 150000",
    [DOCTOR_WMEM_MAX] = "212992",
    [DOCTOR_SACK] = "1",
    [DOCTOR_TIMESTAMPS] = "1",
    [DOCTOR_WINDOW_SCALING] = "1",
    [DOCTOR_CONGESTION] = "cubic",
    [DOCTOR_PORT_RANGE] = "32768 60999",
    [DOCTOR_CONNTRACK_MAX] = "262144",
    [DOCTOR_OVERCOMMIT] = "0",
    [DOCTOR_HUGE_PAGES] = "always [madvise] never",
};

static void set_text(enum doctor_setting which, const char *text)
{
    snprintf(facts.text[which], DOCTOR_TEXT_MAX, "%s", text);
}

static int set_up(void **state)
{
    (void)state;
    conf = (struct conf){0};
    conf.limits.connections = 100000;
    conf.server.backlog = 4096;
    facts = (struct doctor_facts){.nofile_soft = 1024, .nofile_hard = 1048576, .page_bytes = 4096};
    for (int i = 0; i < DOCTOR_SETTINGS; i++)
        set_text((enum doctor_setting)i, good[i]);
    return 0;
}

static int judge(void)
{
    memset(printed, 0, sizeof(printed));
    FILE *out = fmemopen(printed, sizeof(printed) - 1, "w");
    assert_non_null(out);
    int problems = doctor_judge(&facts, &conf, out);
    fclose(out);
    return problems;
}

static void assert_printed(const char *text)
{
    if (!strstr(printed, text))
        fail_msg("\"%s\" is not in:\n%s", text, printed);
}

static void assert_one_problem(const char *line)
{
    assert_int_equal(judge(), 1);
    assert_printed(line);
}

static void doctor__a_good_machine_has_no_problem(void **state)
{
    (void)state;
    assert_int_equal(judge(), 0);
    assert_null(strstr(printed, "warn"));
    assert_null(strstr(printed, "fail"));
    assert_printed("ok    net.ipv4.tcp_sack = 1\n");
    assert_printed("ok    nofile (hard) = 1048576\n");
    assert_printed("ok    net.ipv4.ip_local_port_range = 32768 60999  (");
}

static void doctor__each_bad_setting_is_one_problem_with_its_remedy(void **state)
{
    (void)state;
    static const struct {
        enum doctor_setting which;
        const char *text;
        const char *line;
        const char *remedy;
    } cases[] = {
        {DOCTOR_NR_OPEN, "65536", "warn  fs.nr_open = 65536  (want 1048576", "fs.nr_open=1048576"},
        {DOCTOR_FILE_MAX, "100255", "fail  fs.file-max = 100255", "sysctl -w fs.file-max=100256"},
        {DOCTOR_SOMAXCONN, "4095", "warn  net.core.somaxconn = 4095  (want 4096 or more",
         "sysctl -w net.core.somaxconn=4096"},
        {DOCTOR_SYN_BACKLOG, "128", "warn  net.ipv4.tcp_max_syn_backlog = 128", "=4096"},
        {DOCTOR_SYNCOOKIES, "0", "warn  net.ipv4.tcp_syncookies = 0", "tcp_syncookies=1"},
        {DOCTOR_TCP_MEM, "75000 99999 150000", "warn  net.ipv4.tcp_mem = 75000 99999 150000",
         "tcp_mem='75000 100000 150000'"},
        {DOCTOR_SACK, "0", "warn  net.ipv4.tcp_sack = 0", "sysctl -w net.ipv4.tcp_sack=1"},
        {DOCTOR_TIMESTAMPS, "0", "warn  net.ipv4.tcp_timestamps = 0", "tcp_timestamps=1"},
        {DOCTOR_WINDOW_SCALING, "0", "warn  net.ipv4.tcp_window_scaling = 0", "scaling=1"},
        {DOCTOR_CONGESTION, "bbr", "warn  net.ipv4.tcp_congestion_control = bbr", "=cubic"},
        {DOCTOR_CONNTRACK_MAX, "65536", "fail  net.netfilter.nf_conntrack_max = 65536",
         "nf_conntrack_max=100000"},
        {DOCTOR_OVERCOMMIT, "2", "warn  vm.overcommit_memory = 2", "overcommit_memory=0"},
        {DOCTOR_HUGE_PAGES, "[always] madvise never", "warn  transparent_hugepage = [always]",
         "echo madvise >"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set_up(NULL);
        set_text(cases[i].which, cases[i].text);
        assert_one_problem(cases[i].line);
        assert_printed(cases[i].remedy);
    }
}

static void doctor__settings_that_this_kernel_lacks_are_passed_over(void **state)
{
    (void)state;
    memset(facts.text, 0, sizeof(facts.text));
    assert_int_equal(judge(), 0);
    assert_null(strstr(printed, "net."));
}

static void doctor__a_setting_without_a_number_is_a_problem(void **state)
{
    (void)state;
    set_text(DOCTOR_SACK, "on");
    assert_one_problem("warn  net.ipv4.tcp_sack = on");
    set_up(NULL);
    set_text(DOCTOR_TCP_MEM, "200000");
    assert_one_problem("warn  net.ipv4.tcp_mem = 200000");
}

static void doctor__files_must_suffice_for_the_viewers_of_the_conf(void **state)
{
    (void)state;
    facts.nofile_hard = 100255;
    assert_one_problem("fail  nofile (hard) = 100255  (want 100256 or more: limits.connections");
    facts.nofile_hard = 100256;
    assert_int_equal(judge(), 0);
}

static void doctor__without_limits_connections_the_file_limit_counts(void **state)
{
    (void)state;
    conf.limits.connections = 0;
    facts.nofile_hard = 65536;
    assert_one_problem("warn  nofile (hard) = 65536  (want 1048576");
    facts.nofile_hard = 1048576;
    assert_int_equal(judge(), 2);
    assert_printed("warn  net.ipv4.tcp_mem");
    assert_printed("warn  net.netfilter.nf_conntrack_max");
}

static void doctor__a_set_sndbuf_must_fit_wmem_max(void **state)
{
    (void)state;
    set_text(DOCTOR_WMEM_MAX, "1000");
    assert_int_equal(judge(), 0);
    assert_null(strstr(printed, "wmem_max"));
    conf.tcp.sndbuf = 1001;
    assert_one_problem("warn  net.core.wmem_max = 1000  (want 1001 or more: tcp.sndbuf");
}

static void doctor__send_delay_needs_room_in_wmem_max(void **state)
{
    (void)state;
    conf.tcp.send_delay_ms = 500;
    set_text(DOCTOR_WMEM_MAX, "196608");
    assert_int_equal(judge(), 0);
    set_text(DOCTOR_WMEM_MAX, "65536");
    assert_one_problem("warn  net.core.wmem_max = 65536  (want 196608 or more: send buffers");
    conf.tcp.sndbuf = 4096; /* it wins */
    assert_int_equal(judge(), 0);
}

/* Processes of one port hold the same sockets, none of which is closed: nothing has to move to another. */
static void doctor__shared_ports_ask_for_nothing_more(void **state)
{
    (void)state;
    conf.server.share_port = true;
    assert_int_equal(judge(), 0);
    assert_null(strstr(printed, "tcp_migrate_req"));
}

static void write_setting(const char *root, const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s%s", root, folder);
    for (char *at = path + strlen(root) + 1; *at; at++) {
        if (*at == '/') {
            *at = '\0';
            (void)mkdir(path, 0700);
            *at = '/';
        }
    }
    strncat(path, name, sizeof(path) - strlen(path) - 1);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_setting(const char *root, const char *path)
{
    char full[256];
    snprintf(full, sizeof(full), "%s%s", root, path);
    (void)unlink(full);
    for (char *slash; (slash = strrchr(full, '/')) && slash > full;) {
        *slash = '\0';
        if (rmdir(full) != 0)
            break;
    }
}

static void doctor_read__takes_the_files_without_line_end_and_tabs(void **state)
{
    (void)state;
    char root[] = "/tmp/halley-doctor-XXXXXX";
    assert_non_null(mkdtemp(root));
    write_setting(root, "/proc/sys/net/ipv4/", "tcp_mem", "1\t2\t3\n");
    write_setting(root, "/proc/sys/net/core/", "somaxconn", "4096\n");
    doctor_read(&facts, root);
    remove_setting(root, "/proc/sys/net/ipv4/tcp_mem");
    remove_setting(root, "/proc/sys/net/core/somaxconn");
    assert_string_equal(facts.text[DOCTOR_TCP_MEM], "1 2 3");
    assert_string_equal(facts.text[DOCTOR_SOMAXCONN], "4096");
    assert_string_equal(facts.text[DOCTOR_SACK], "");
    assert_true(facts.nofile_hard >= facts.nofile_soft);
    assert_true(facts.page_bytes >= 4096);
    assert_int_not_equal(access(root, F_OK), 0);
}

static void doctor_run__sums_up_this_machine(void **state)
{
    (void)state;
    memset(printed, 0, sizeof(printed));
    FILE *out = fmemopen(printed, sizeof(printed) - 1, "w");
    assert_non_null(out);
    int problems = doctor_run(&conf, out);
    fclose(out);
    assert_printed("nofile (hard) = ");
    assert_printed(problems ? "of these settings should be changed"
                            : "all settings suit this conf");
}

static int judge_viewers(const char *metrics)
{
    memset(printed, 0, sizeof(printed));
    FILE *out = fmemopen(printed, sizeof(printed) - 1, "w");
    assert_non_null(out);
    int problems = doctor_judge_viewers(metrics, out);
    fclose(out);
    return problems;
}

static void doctor_viewers__shares_of_tcp_options_are_told(void **state)
{
    (void)state;
    assert_int_equal(
        judge_viewers("HTTP/1.1 200 OK\r\n\r\n# TYPE halley_tcp_viewers_total counter\n"
                      "halley_tcp_viewers_total 2000\n"
                      "halley_tcp_without_total{option=\"sack\"} 6\n"
                      "halley_tcp_without_total{option=\"timestamps\"} 500\n"),
        1);
    assert_printed("ok    viewers without TCP SACK = 0.3 % of 2000\n");
    assert_printed("warn  viewers without TCP timestamps = 25.0 % of 2000  (want few");
    assert_printed("ok    viewers without TCP window scaling = 0.0 % of 2000\n");
    assert_int_equal(judge_viewers("halley_tcp_viewers_total 99\n"), 0);
    assert_printed("viewers of the running node = 99  (too few");
}

int run_doctor_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(doctor__a_good_machine_has_no_problem, set_up),
        cmocka_unit_test_setup(doctor__each_bad_setting_is_one_problem_with_its_remedy, set_up),
        cmocka_unit_test_setup(doctor__settings_that_this_kernel_lacks_are_passed_over, set_up),
        cmocka_unit_test_setup(doctor__a_setting_without_a_number_is_a_problem, set_up),
        cmocka_unit_test_setup(doctor__files_must_suffice_for_the_viewers_of_the_conf, set_up),
        cmocka_unit_test_setup(doctor__without_limits_connections_the_file_limit_counts, set_up),
        cmocka_unit_test_setup(doctor__a_set_sndbuf_must_fit_wmem_max, set_up),
        cmocka_unit_test_setup(doctor__send_delay_needs_room_in_wmem_max, set_up),
        cmocka_unit_test_setup(doctor__shared_ports_ask_for_nothing_more, set_up),
        cmocka_unit_test_setup(doctor_read__takes_the_files_without_line_end_and_tabs, set_up),
        cmocka_unit_test_setup(doctor_run__sums_up_this_machine, set_up),
        cmocka_unit_test(doctor_viewers__shares_of_tcp_options_are_told),
    };
    return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
