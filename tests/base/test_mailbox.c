#include "base/mailbox.h"
#include "base/test_base.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

enum { POSTERS = 4, LETTERS = 5000 };

struct letter {
    struct link link;
    int number;
};

struct poster {
    pthread_t thread;
    struct post_office *office;
    int next; /* number that the receiver expects */
    struct letter letters[LETTERS];
};

struct post_office {
    struct mailbox box;
    sem_t bell;
    struct poster posters[POSTERS];
};

static struct post_office office;

static void mailbox__hands_over_in_order_and_rings_only_when_it_was_empty(void **state)
{
    (void)state;
    struct mailbox box;
    struct letter letters[4];
    struct link out;
    mailbox_init(&box);
    for (int round = 0; round < 3; round++) {
        list_init(&out);
        assert_int_equal(mailbox_count(&box), 0);
        for (int i = 0; i < 4; i++) {
            letters[i].number = i;
            assert_int_equal(mailbox_post(&box, &letters[i].link), i == 0);
            assert_int_equal(mailbox_count(&box), i + 1);
        }
        mailbox_take(&box, &out);
        assert_int_equal(mailbox_count(&box), 0);
        for (int i = 0; i < 4; i++)
            assert_ptr_equal(list_shift(&out), &letters[i].link);
        assert_null(list_shift(&out));
    }
    mailbox_take(&box, &out);
    assert_true(list_empty(&out));
    mailbox_fini(&box);
}

static void mailbox_take__appends_to_what_is_there(void **state)
{
    (void)state;
    struct mailbox box;
    struct link first;
    struct link second;
    struct link out;
    mailbox_init(&box);
    list_init(&out);
    list_append(&out, &first);
    (void)mailbox_post(&box, &second);
    mailbox_take(&box, &out);
    assert_ptr_equal(list_shift(&out), &first);
    assert_ptr_equal(list_shift(&out), &second);
    mailbox_fini(&box);
}

static void *post_letters(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < LETTERS; i++) {
        poster->letters[i].number = i;
        if (mailbox_post(&poster->office->box, &poster->letters[i].link))
            sem_post(&poster->office->bell);
    }
    return NULL;
}

/* Whose letter is it? Each poster's own must come in its order. */
static void receive(struct letter *letter)
{
    for (int i = 0; i < POSTERS; i++) {
        struct poster *poster = &office.posters[i];
        if (letter < poster->letters || letter >= poster->letters + LETTERS)
            continue;
        assert_int_equal(letter->number, poster->next);
        poster->next++;
        return;
    }
    fail_msg("a letter of nobody");
}

/* Waits for the bell; a wake-up that gets lost shows as a bell that never rings again. */
static void await_bell(void)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 30;
    int error;
    do
        error = sem_timedwait(&office.bell, &limit);
    while (error != 0 && errno == EINTR);
    assert_int_equal(error, 0);
}

static void mailbox__loses_no_letter_and_no_wake_up_with_many_posters(void **state)
{
    (void)state;
    mailbox_init(&office.box);
    assert_int_equal(sem_init(&office.bell, 0, 0), 0);
    for (int i = 0; i < POSTERS; i++) {
        struct poster *poster = &office.posters[i];
        poster->office = &office;
        assert_int_equal(pthread_create(&poster->thread, NULL, post_letters, poster), 0);
    }
    for (int received = 0; received < POSTERS * LETTERS;) {
        struct link out;
        struct link *link;
        list_init(&out);
        await_bell();
        mailbox_take(&office.box, &out);
        while ((link = list_shift(&out))) {
            receive(CONTAINER_OF(link, struct letter, link));
            received++;
        }
    }
    for (int i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_join(office.posters[i].thread, NULL), 0);
    assert_int_equal(mailbox_count(&office.box), 0);
    sem_destroy(&office.bell);
    mailbox_fini(&office.box);
}

int run_mailbox_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mailbox__hands_over_in_order_and_rings_only_when_it_was_empty),
        cmocka_unit_test(mailbox_take__appends_to_what_is_there),
        cmocka_unit_test(mailbox__loses_no_letter_and_no_wake_up_with_many_posters),
    };
    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
