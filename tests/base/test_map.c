#include "base/list.h"
#include "base/map.h"
#include "base/test_base.h"
#include "lib/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES = 5000 };

struct entry {
    struct map_node node;
    char key[16];
};

static struct entry entries[ENTRIES];

static struct entry *find(const struct map *map, const char *key)
{
    uint32_t hash = map_hash(key, strlen(key));
    for (struct map_node *node = map_chain(map, hash); node; node = node->next) {
        struct entry *entry = CONTAINER_OF(node, struct entry, node);
        if (node->hash == hash && strcmp(entry->key, key) == 0)
            return entry;
    }
    return NULL;
}

static int add(struct map *map, unsigned i)
{
    snprintf(entries[i].key, sizeof(entries[i].key), "room-%u", i);
    return map_add(map, &entries[i].node, map_hash(entries[i].key, strlen(entries[i].key)));
}

static void map__finds_all_while_it_grows_and_shrinks(void **state)
{
    (void)state;
    struct map map = {0};
    assert_null(find(&map, "room-0"));
    for (unsigned i = 0; i < ENTRIES; i++) {
        assert_int_equal(add(&map, i), 0);
        assert_ptr_equal(find(&map, entries[i / 2].key), &entries[i / 2]);
    }
    assert_int_equal(map.count, ENTRIES);
    assert_true(map.mask + 1 >= ENTRIES / 2);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_ptr_equal(find(&map, entries[i].key), &entries[i]);
    uint32_t widest = map.mask;
    for (unsigned i = 0; i < ENTRIES; i++) {
        map_remove(&map, &entries[i].node);
        assert_null(find(&map, entries[i].key));
        unsigned other = ENTRIES - 1 - i;
        assert_ptr_equal(find(&map, entries[other].key), other > i ? &entries[other] : NULL);
    }
    assert_int_equal(map.count, 0);
    assert_true(map.mask < widest / 64);
    map_fini(&map);
}

static void map__chains_nodes_of_one_hash(void **state)
{
    (void)state;
    struct map map = {0};
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(map_add(&map, &entries[i].node, 42), 0);
    unsigned seen = 0;
    for (struct map_node *node = map_chain(&map, 42); node; node = node->next)
        seen++;
    assert_int_equal(seen, 100);
    for (unsigned i = 0; i < 100; i += 2)
        map_remove(&map, &entries[i].node);
    for (struct map_node *node = map_chain(&map, 42); node; node = node->next)
        assert_int_equal((CONTAINER_OF(node, struct entry, node) - entries) % 2, 1);
    assert_int_equal(map.count, 50);
    map_fini(&map);
}

static void map_remove__a_node_twice_changes_nothing(void **state)
{
    (void)state;
    struct map map = {0};
    add(&map, 0);
    add(&map, 1);
    map_remove(&map, &entries[0].node);
    map_remove(&map, &entries[0].node);
    assert_int_equal(map.count, 1);
    assert_ptr_equal(find(&map, entries[1].key), &entries[1]);
    map_fini(&map);
}

static void count_visit(void *ctx, struct map_node *node)
{
    unsigned *seen = ctx;
    seen[CONTAINER_OF(node, struct entry, node) - entries]++;
}

static void map_each__visits_every_node_once(void **state)
{
    (void)state;
    static unsigned seen[ENTRIES];
    struct map map = {0};
    map_each(&map, count_visit, seen);
    for (unsigned i = 0; i < ENTRIES; i++)
        add(&map, i);
    map_each(&map, count_visit, seen);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_int_equal(seen[i], 1);
    map_fini(&map);
}

static void map_add__without_memory_for_the_first_buckets_fails(void **state)
{
    (void)state;
    struct map map = {0};
    alloc_fail_at(1);
    assert_int_equal(add(&map, 0), -1);
    assert_int_equal(map.count, 0);
    assert_int_equal(add(&map, 0), 0);
    assert_ptr_equal(find(&map, entries[0].key), &entries[0]);
    map_fini(&map);
}

static void map__without_memory_to_grow_or_shrink_works_on(void **state)
{
    (void)state;
    struct map map = {0};
    assert_int_equal(add(&map, 0), 0);
    uint32_t mask = map.mask;
    unsigned n = 1;
    for (; map.count <= mask; n++)
        assert_int_equal(add(&map, n), 0);
    alloc_fail_at(1);
    assert_int_equal(add(&map, n), 0);
    alloc_fail_at(0);
    assert_int_equal(map.mask, mask);
    for (unsigned i = 0; i <= n; i++)
        assert_ptr_equal(find(&map, entries[i].key), &entries[i]);
    map_fini(&map);
}

static void map_hash__is_seeded_and_spreads(void **state)
{
    (void)state;
    uint32_t before = map_hash("room", 4);
    assert_int_equal(map_hash("room", 4), before);
    map_seed();
    uint32_t first = map_hash("room", 4);
    map_seed();
    uint32_t second = map_hash("room", 4);
    assert_true(before != first || first != second);
    assert_true(map_hash("room\0", 5) != map_hash("room", 4));
    /* 16,384 names in 256 buckets: 64 each on average, and none far from it. */
    static unsigned buckets[256];
    for (unsigned i = 0; i < 16384; i++) {
        char key[16];
        int len = snprintf(key, sizeof(key), "u%u", i);
        buckets[map_hash(key, (size_t)len) & 255]++;
    }
    for (unsigned i = 0; i < 256; i++)
        assert_in_range(buckets[i], 16, 144);
}

int run_map_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map__finds_all_while_it_grows_and_shrinks),
        cmocka_unit_test(map__chains_nodes_of_one_hash),
        cmocka_unit_test(map_remove__a_node_twice_changes_nothing),
        cmocka_unit_test(map_each__visits_every_node_once),
        cmocka_unit_test(map_add__without_memory_for_the_first_buckets_fails),
        cmocka_unit_test(map__without_memory_to_grow_or_shrink_works_on),
        cmocka_unit_test(map_hash__is_seeded_and_spreads),
    };
    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
