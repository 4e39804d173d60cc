/* doctor.h: halley --doctor: the kernel's settings and the process's limits against what the conf needs.
 *
 * One line per setting:
 *
 *     ok    net.ipv4.tcp_sack = 1
 *     warn  net.core.somaxconn = 128  (want 4096 or more: …; set it with: sysctl -w net.core.somaxconn=4096)
 *
 * `fail` is what keeps the node from doing what its conf says, `warn` what will hurt. Reading and
 * judging are apart, so that tests judge settings of any machine.
 *
 * Threads:   any; no state.
 */
#pragma once

#include "conf/conf.h"

#include <stdint.h>
#include <stdio.h>

enum doctor_setting {
    DOCTOR_NR_OPEN,
    DOCTOR_FILE_MAX,
    DOCTOR_SOMAXCONN,
    DOCTOR_SYN_BACKLOG,
    DOCTOR_SYNCOOKIES,
    DOCTOR_TCP_MEM,
    DOCTOR_WMEM_MAX,
    DOCTOR_SACK,
    DOCTOR_TIMESTAMPS,
    DOCTOR_WINDOW_SCALING,
    DOCTOR_CONGESTION,
    DOCTOR_PORT_RANGE,
    DOCTOR_CONNTRACK_MAX,
    DOCTOR_OVERCOMMIT,
    DOCTOR_HUGE_PAGES,
    DOCTOR_SETTINGS
};

enum { DOCTOR_TEXT_MAX = 64 };

/* What was found. text[]: the files' content without the line end; empty where there is no such setting here. */
struct doctor_facts {
    uint64_t nofile_soft;
    uint64_t nofile_hard;
    uint64_t page_bytes;
    char text[DOCTOR_SETTINGS][DOCTOR_TEXT_MAX];
};

/* Reads the running kernel's settings from below root ("" for the real ones). */
void doctor_read(struct doctor_facts *facts, const char *root);

/* Prints one line per setting; returns how many of them are not ok. */
int doctor_judge(const struct doctor_facts *facts, const struct conf *conf, FILE *out);

/* Reads and judges; ends with a line that sums up. Returns the number of problems, 0 when all is well. */
int doctor_run(const struct conf *conf, FILE *out);
