#include "auth/grant.h"

#include <stdlib.h>

/* The claims' rights in the form of a grant's text. */
struct rights {
    uint16_t rooms_len;
    uint16_t send_len;
    bool any_room;
    bool any_type;
    char text[AUTH_RIGHTS_MAX];
};

static uint16_t append(char *text, size_t at, const struct auth_claims *claims,
                       const struct auth_names *names)
{
    memcpy(text + at, claims->text + names->at, names->len);
    return names->len;
}

/* The rooms of `join` count only where there is a list at all: without one every room is allowed. */
static void read_rights(const struct auth_claims *claims, struct rights *rights)
{
    size_t at = 0;
    rights->any_room = !claims->rooms.given;
    rights->any_type = !claims->send.given;
    if (!rights->any_room) {
        at += append(rights->text, at, claims, &claims->rooms);
        at += append(rights->text, at, claims, &claims->join);
    }
    rights->rooms_len = (uint16_t)at;
    rights->send_len = append(rights->text, at, claims, &claims->send);
}

static size_t text_len(const struct grant *grant)
{
    return (size_t)grant->rooms_len + grant->send_len;
}

static bool is_same(const struct grant *grant, const struct rights *rights)
{
    return grant->any_room == rights->any_room && grant->any_type == rights->any_type &&
           grant->rooms_len == rights->rooms_len && grant->send_len == rights->send_len &&
           memcmp(grant->text, rights->text, text_len(grant)) == 0;
}

struct grant *grants_take(struct grants *grants, const struct auth_claims *claims)
{
    struct rights rights;
    read_rights(claims, &rights);
    size_t len = (size_t)rights.rooms_len + rights.send_len;
    uint32_t hash = map_hash(rights.text, len);
    for (struct map_node *at = map_chain(&grants->map, hash); at; at = at->next) {
        struct grant *found = CONTAINER_OF(at, struct grant, node);
        if (at->hash == hash && is_same(found, &rights)) {
            found->refs++;
            return found;
        }
    }
    struct grant *grant = calloc(1, sizeof(*grant) + len);
    if (!grant)
        return NULL;
    grant->refs = 1;
    grant->rooms_len = rights.rooms_len;
    grant->send_len = rights.send_len;
    grant->any_room = rights.any_room;
    grant->any_type = rights.any_type;
    memcpy(grant->text, rights.text, len);
    if (map_add(&grants->map, &grant->node, hash) != 0) {
        free(grant);
        return NULL;
    }
    grants->bytes += sizeof(*grant) + len;
    return grant;
}

void grants_release(struct grants *grants, struct grant *grant)
{
    if (!grant || --grant->refs > 0)
        return;
    grants->bytes -= sizeof(*grant) + text_len(grant);
    map_remove(&grants->map, &grant->node);
    free(grant);
}

void grants_fini(struct grants *grants)
{
    map_fini(&grants->map);
}

static bool matches(struct bytes pattern, struct bytes name)
{
    if (pattern.len > 0 && pattern.data[pattern.len - 1] == '*')
        return name.len >= pattern.len - 1 && memcmp(name.data, pattern.data, pattern.len - 1) == 0;
    return bytes_equal(pattern, name);
}

bool grant_allows_room(const struct grant *grant, struct bytes room)
{
    if (!grant || grant->any_room)
        return true;
    struct bytes list = bytes_of(grant->text, grant->rooms_len);
    struct bytes pattern;
    while (auth_names_next(&list, &pattern)) {
        if (matches(pattern, room))
            return true;
    }
    return false;
}

bool grant_allows_type(const struct grant *grant, struct bytes type)
{
    if (!grant || grant->any_type)
        return true;
    struct bytes list = bytes_of(grant->text + grant->rooms_len, grant->send_len);
    struct bytes name;
    while (auth_names_next(&list, &name)) {
        if (bytes_equal(name, type))
            return true;
    }
    return false;
}
