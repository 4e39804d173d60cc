#include "auth/grant.h"
#include "auth_test.h"

static struct grant *take(struct grants *grants, const char *json)
{
    struct auth_claims claims;
    assert_int_equal(auth_claims_read(bytes_str(json), &claims), AUTH_OK);
    struct grant *grant = grants_take(grants, &claims);
    assert_non_null(grant);
    return grant;
}

static bool room(const struct grant *grant, const char *name)
{
    return grant_allows_room(grant, bytes_str(name));
}

static void rights__are_those_of_the_claims(void **state)
{
    (void)state;
    struct grants grants = {0};
    struct grant *some = take(&grants, "{\"sub\":\"a\",\"rooms\":[\"42\",\"team-*\"],\"join\":["
                                       "\"lobby\"],\"send\":[\"chat\"]}");
    assert_true(room(some, "42") && room(some, "team-") && room(some, "team-7"));
    assert_true(room(some, "lobby"));
    assert_false(room(some, "4") || room(some, "421") || room(some, "team") ||
                 room(some, "tean-7"));
    assert_false(
        grant_allows_room(some, bytes_of("team-7", 4))); /* what stands behind is not its */
    assert_true(grant_allows_type(some, bytes_str("chat")));
    assert_false(grant_allows_type(some, bytes_str("cha")));
    struct grant *all = take(&grants, "{\"sub\":\"a\",\"join\":[\"lobby\"]}");
    assert_true(room(all, "anything"));
    assert_true(grant_allows_type(all, bytes_str("anything")));
    struct grant *none = take(&grants, "{\"sub\":\"a\",\"rooms\":[],\"send\":[]}");
    assert_false(room(none, "42"));
    assert_false(grant_allows_type(none, bytes_str("chat")));
    struct grant *star = take(&grants, "{\"sub\":\"a\",\"rooms\":[\"*\"]}");
    assert_true(room(star, "x"));
    assert_true(grant_allows_room(NULL, bytes_str("x")) && grant_allows_type(NULL, bytes_str("x")));
    grants_release(&grants, some);
    grants_release(&grants, all);
    grants_release(&grants, none);
    grants_release(&grants, star);
    assert_int_equal(grants.map.count, 0);
    assert_int_equal(grants.bytes, 0);
    grants_fini(&grants);
}

static void equal_rights__are_kept_once(void **state)
{
    (void)state;
    struct grants grants = {0};
    struct grant *a = take(&grants, "{\"sub\":\"a\",\"exp\":5,\"rooms\":[\"x\"],\"send\":[]}");
    struct grant *b = take(&grants, "{\"sub\":\"b\",\"exp\":6,\"rooms\":[\"x\"],\"send\":[]}");
    struct grant *c = take(&grants, "{\"sub\":\"c\",\"rooms\":[],\"send\":[\"x\"]}");
    struct grant *d = take(&grants, "{\"sub\":\"d\",\"rooms\":[\"x\"]}");
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c); /* the same bytes in another list */
    assert_ptr_not_equal(a, d);
    assert_int_equal(grants.map.count, 3);
    grants_release(&grants, a);
    assert_true(room(b, "x"));
    grants_release(&grants, b);
    grants_release(&grants, c);
    grants_release(&grants, d);
    grants_release(&grants, NULL);
    assert_int_equal(grants.map.count, 0);
    grants_fini(&grants);
}

int run_grant_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights__are_those_of_the_claims),
        cmocka_unit_test(equal_rights__are_kept_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
