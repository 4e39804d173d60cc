#include "auth/claims.h"

#include "json/json.h"

enum { CLAIMS_DEPTH = 16, SECONDS_MAX_DIGITS = 11 };

const char *auth_result_label(enum auth_result result)
{
    static const char *const labels[] = {
#define X(name, label, text) label,
        AUTH_RESULTS(X)
#undef X
    };
    return labels[result];
}

const char *auth_result_text(enum auth_result result)
{
    static const char *const texts[] = {
#define X(name, label, text) text,
        AUTH_RESULTS(X)
#undef X
    };
    return texts[result];
}

/* A NumericDate (RFC 7519 §2): seconds, perhaps with a fraction, which is left out. */
static bool read_seconds(struct json_span value, uint64_t *out)
{
    struct bytes raw = value.raw;
    uint64_t seconds = 0;
    size_t at = 0;
    if (value.kind == JSON_ABSENT)
        return true;
    if (value.kind != JSON_NUMBER)
        return false;
    for (; at < raw.len && raw.data[at] >= '0' && raw.data[at] <= '9'; at++) {
        if (at == SECONDS_MAX_DIGITS)
            return false;
        seconds = seconds * 10 + (uint64_t)(raw.data[at] - '0');
    }
    for (size_t i = at; i < raw.len; i++) {
        bool fraction = i == at ? raw.data[i] == '.' : raw.data[i] >= '0' && raw.data[i] <= '9';
        if (!fraction)
            return false;
    }
    *out = seconds;
    return at > 0;
}

static bool is_room_pattern(struct bytes name)
{
    if (name.len > 0 && name.data[name.len - 1] == '*')
        return name.len == 1 || name_is_room(bytes_of(name.data, name.len - 1));
    return name_is_room(name);
}

static bool keep_name(struct auth_claims *claims, struct json_span value,
                      bool (*allowed)(struct bytes))
{
    char scratch[ROOM_NAME_MAX + 1];
    struct bytes name;
    if (value.kind != JSON_STRING || !json_text(value, scratch, sizeof(scratch), &name) ||
        !allowed(name) || claims->text_len + 1 + name.len > sizeof(claims->text))
        return false;
    claims->text[claims->text_len] = (char)name.len;
    memcpy(claims->text + claims->text_len + 1, name.data, name.len);
    claims->text_len += 1 + name.len;
    return true;
}

static bool read_names(struct auth_claims *claims, struct json_span value,
                       bool (*allowed)(struct bytes), struct auth_names *out)
{
    struct json_span items[AUTH_LIST_MAX];
    size_t count = AUTH_LIST_MAX;
    size_t start = claims->text_len;
    if (value.kind == JSON_ABSENT)
        return true;
    if (value.kind != JSON_ARRAY || json_array(value.raw, CLAIMS_DEPTH, items, &count) != JSON_OK)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!keep_name(claims, items[i], allowed))
            return false;
    }
    *out = (struct auth_names){
        .given = true, .len = (uint16_t)(claims->text_len - start), .at = (uint16_t)start};
    return true;
}

static bool read_text(struct json_span value, bool (*allowed)(struct bytes), char *out, size_t cap)
{
    ssize_t len = json_unescape(value, out, cap - 1);
    if (len < 0 || !allowed(bytes_of(out, (size_t)len)))
        return false;
    out[len] = '\0';
    return true;
}

enum auth_result auth_claims_read(struct bytes json, struct auth_claims *out)
{
    enum { SUB, EXP, NBF, ROOMS, JOIN, SEND, SESSION, COUNT };
    struct json_field fields[COUNT] = {
        [SUB] = {.name = "sub"},         [EXP] = {.name = "exp"},   [NBF] = {.name = "nbf"},
        [ROOMS] = {.name = "rooms"},     [JOIN] = {.name = "join"}, [SEND] = {.name = "send"},
        [SESSION] = {.name = "session"},
    };
    if (json_object(json, CLAIMS_DEPTH, fields, COUNT) != JSON_OK)
        return AUTH_MALFORMED;
    memset(out, 0, offsetof(struct auth_claims, text));
    struct json_span session = fields[SESSION].value;
    bool good = read_text(fields[SUB].value, name_is_user, out->user, sizeof(out->user)) &&
                (session.kind == JSON_ABSENT ||
                 read_text(session, name_is_room, out->session, sizeof(out->session))) &&
                read_seconds(fields[EXP].value, &out->expires_s) &&
                read_seconds(fields[NBF].value, &out->begins_s) &&
                read_names(out, fields[ROOMS].value, is_room_pattern, &out->rooms) &&
                read_names(out, fields[JOIN].value, name_is_room, &out->join) &&
                read_names(out, fields[SEND].value, name_is_type, &out->send) &&
                (fields[EXP].value.kind == JSON_ABSENT || out->expires_s > 0);
    return good ? AUTH_OK : AUTH_CLAIMS;
}

enum auth_result auth_claims_judge(const struct auth_claims *claims, uint64_t now_ms,
                                   uint64_t leeway_ms)
{
    if (claims->expires_s > 0 && now_ms >= claims->expires_s * 1000 + leeway_ms)
        return AUTH_EXPIRED;
    if (now_ms + leeway_ms < claims->begins_s * 1000)
        return AUTH_NOT_YET;
    return AUTH_OK;
}
