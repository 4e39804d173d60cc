#include "admin/internal.h"
#include "base/names.h"

#include <stdio.h>

enum access {
    ACCESS_ALL,   /* health checkers, whatever name they ask by */
    ACCESS_LOCAL, /* no token, but no web pages */
    ACCESS_TOKEN  /* admin.token where one is set, and no web pages */
};

enum route_name { NAME_NONE, NAME_ROOM, NAME_USER };

/* One request being judged. */
struct call {
    struct admin *admin;
    struct admin_request *request;
    struct bytes name; /* of the room or user in the path */
    char *query;       /* behind the question mark, NUL-terminated, empty when there is none */
};

typedef void (*route_handler)(struct call *call);

struct route {
    const char *pattern; /* `*` stands for the name */
    enum access access;
    enum route_name name;
    route_handler get; /* HEAD too */
    route_handler post;
    route_handler delete_;
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes percent signs in place (RFC 3986 §2.1), in a query `+` too. Returns false when one is
 * malformed. */
static bool decode(char *text, size_t len, bool query, struct bytes *out)
{
    size_t to = 0;
    for (size_t from = 0; from < len; from++) {
        char c = text[from];
        if (c == '%') {
            int high = from + 2 < len ? hex_digit(text[from + 1]) : -1;
            int low = high >= 0 ? hex_digit(text[from + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            from += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        text[to++] = c;
    }
    *out = bytes_of(text, to);
    return true;
}

static void answer_bad(struct call *call, const char *code, const char *message)
{
    admin_answer_error(call->request, 400, code, message, 0);
}

static void on_healthz(struct call *call)
{
    call->admin->ops->health(call->admin->ctx, call->request, false);
}

static void on_readyz(struct call *call)
{
    call->admin->ops->health(call->admin->ctx, call->request, true);
}

static void on_metrics(struct call *call)
{
    call->admin->ops->metrics(call->admin->ctx, call->request);
}

static void on_config(struct call *call)
{
    call->admin->ops->config(call->admin->ctx, call->request);
}

static bool refuse_empty(struct call *call)
{
    if (call->request->body.len > 0)
        return false;
    answer_bad(call, "bad-message",
               "The body is empty; send an object like {\"type\":\"chat\",\"data\":…}.");
    return true;
}

static void on_publish_user(struct call *call)
{
    if (!refuse_empty(call))
        call->admin->ops->publish_user(call->admin->ctx, call->request, call->name,
                                       buf_view(&call->request->body));
}

/* To the room of the path, or to all. */
static void on_publish(struct call *call)
{
    if (refuse_empty(call))
        return;
    call->admin->ops->publish(call->admin->ctx, call->request, call->name,
                              buf_view(&call->request->body));
}

static void on_drain(struct call *call)
{
    call->admin->ops->drain(call->admin->ctx, call->request, buf_view(&call->request->body));
}

static void on_room(struct call *call)
{
    call->admin->ops->room(call->admin->ctx, call->request, call->name);
}

static void on_connections(struct call *call)
{
    call->admin->ops->connections(call->admin->ctx, call->request, call->name);
}

static void on_kick(struct call *call)
{
    call->admin->ops->kick(call->admin->ctx, call->request, call->name);
}

struct rooms_query {
    uint32_t limit;
    struct bytes after;
    enum rooms_sort sort;
};

static bool parse_limit(struct bytes text, uint32_t *limit)
{
    uint32_t value = 0;
    if (text.len == 0 || text.len > 4)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint32_t)(text.data[i] - '0');
    }
    *limit = value;
    return value >= 1 && value <= ADMIN_ROOMS_LIMIT_MAX;
}

/* Takes one parameter. Returns NULL, or what is wrong with it. Unknown ones are ignored. */
static const char *parse_parameter(struct rooms_query *query, struct bytes key, struct bytes value)
{
    if (bytes_is(key, "limit"))
        return parse_limit(value, &query->limit) ? NULL : "limit must be a number from 1 to 1000.";
    if (bytes_is(key, "after")) {
        query->after = value;
        return value.len == 0 || name_is_room(value) ? NULL : "after must be the name of a room.";
    }
    if (bytes_is(key, "sort")) {
        bool by_viewers = bytes_is(value, "viewers");
        query->sort = by_viewers ? ROOMS_BY_VIEWERS : ROOMS_BY_NAME;
        return by_viewers || bytes_is(value, "name") ? NULL : "sort must be name or viewers.";
    }
    return NULL;
}

static const char *parse_rooms_query(struct rooms_query *query, char *text)
{
    while (*text) {
        size_t len = strcspn(text, "&");
        char *next = text + len + (text[len] == '&');
        size_t key_len = strcspn(text, "=&");
        char *value_text = text + key_len + (text[key_len] == '=');
        struct bytes key, value;
        if (!decode(value_text, (size_t)(text + len - value_text), true, &value) ||
            !decode(text, key_len, true, &key))
            return "A percent sign in the query is not followed by two hexadecimal digits.";
        const char *why = parse_parameter(query, key, value);
        if (why)
            return why;
        text = next;
    }
    if (query->sort == ROOMS_BY_VIEWERS && query->after.len > 0)
        return "after goes with sort=name only; by viewers there is but the first page.";
    return NULL;
}

static void on_rooms(struct call *call)
{
    struct rooms_query query = {.limit = ADMIN_ROOMS_LIMIT_DEFAULT};
    const char *why = parse_rooms_query(&query, call->query);
    if (why)
        answer_bad(call, "bad-message", why);
    else
        call->admin->ops->rooms(call->admin->ctx, call->request, query.limit, query.after,
                                query.sort);
}

static const struct route routes[] = {
    {.pattern = "/healthz", .access = ACCESS_ALL, .get = on_healthz},
    {.pattern = "/readyz", .access = ACCESS_ALL, .get = on_readyz},
    {.pattern = "/metrics", .access = ACCESS_LOCAL, .get = on_metrics},
    {.pattern = "/v1/config", .access = ACCESS_TOKEN, .get = on_config},
    {.pattern = "/v1/drain", .access = ACCESS_TOKEN, .post = on_drain},
    {.pattern = "/v1/messages", .access = ACCESS_TOKEN, .post = on_publish},
    {.pattern = "/v1/rooms", .access = ACCESS_TOKEN, .get = on_rooms},
    {.pattern = "/v1/rooms/*", .access = ACCESS_TOKEN, .name = NAME_ROOM, .get = on_room},
    {.pattern = "/v1/rooms/*/messages",
     .access = ACCESS_TOKEN,
     .name = NAME_ROOM,
     .post = on_publish},
    {.pattern = "/v1/users/*/messages",
     .access = ACCESS_TOKEN,
     .name = NAME_USER,
     .post = on_publish_user},
    {.pattern = "/v1/users/*/connections",
     .access = ACCESS_TOKEN,
     .name = NAME_USER,
     .get = on_connections,
     .delete_ = on_kick},
};

/* Gives what stood for the `*` too, still encoded: a user's name may hold a slash, as %2F. */
static bool route_matches(const char *pattern, const char *path, const char **name, size_t *len)
{
    const char *star = strchr(pattern, '*');
    if (!star)
        return strcmp(pattern, path) == 0;
    size_t before = (size_t)(star - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    *name = path + before;
    *len = strcspn(*name, "/");
    return *len > 0 && strcmp(star + 1, *name + *len) == 0;
}

static const struct route *find_route(const char *path, const char **name, size_t *len)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (route_matches(routes[i].pattern, path, name, len))
            return &routes[i];
    }
    return NULL;
}

static route_handler find_handler(const struct route *route, const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return route->get;
    if (strcmp(method, "POST") == 0)
        return route->post;
    return strcmp(method, "DELETE") == 0 ? route->delete_ : NULL;
}

/* Returns true when the request may go on; else it is answered. */
static bool check_access(struct call *call, enum access access)
{
    const struct admin_request *request = call->request;
    const char *token = call->admin->token;
    if (access == ACCESS_ALL || guard_token_valid(request->authorization, token))
        return true;
    if (request->origin) {
        admin_answer_error(call->request, 403, "forbidden",
                           "A web page (header Origin) may ask only with a valid admin.token.", 0);
        return false;
    }
    /* HTTP/1.0 needs no Host, and no browser speaks it. */
    if (token[0] == '\0' && request->host && !guard_host_is_local(request->host)) {
        admin_answer_error(call->request, 403, "forbidden",
                           "Without admin.token only an IP address or localhost is served as Host.",
                           0);
        return false;
    }
    if (access == ACCESS_TOKEN && token[0] != '\0') {
        admin_answer_header(call->request, 401, "unauthorized",
                            "This call needs the header Authorization: Bearer <admin.token>.",
                            "WWW-Authenticate", "Bearer realm=\"halley\"");
        return false;
    }
    return true;
}

static bool check_name(struct call *call, enum route_name kind, char *raw, size_t len)
{
    if (kind == NAME_NONE)
        return true;
    bool decoded = decode(raw, len, false, &call->name);
    if (kind == NAME_ROOM && !(decoded && name_is_room(call->name))) {
        answer_bad(call, "bad-name", "A room's name is 1 to 64 of A-Z a-z 0-9 _ . : -");
        return false;
    }
    if (kind == NAME_USER && !(decoded && name_is_user(call->name))) {
        answer_bad(call, "bad-name",
                   "A user's name is 1 to 64 of printable ASCII without \" and \\, "
                   "percent-encoded.");
        return false;
    }
    return true;
}

static void answer_method(struct call *call, const struct route *route)
{
    char allow[32];
    snprintf(allow, sizeof(allow), "%s%s%s%s", route->get ? "GET, HEAD" : "",
             route->get && route->delete_ ? ", " : "", route->delete_ ? "DELETE" : "",
             route->post ? "POST" : "");
    admin_answer_header(call->request, 405, "method-not-allowed",
                        "This path does not take that method; the header Allow lists its methods.",
                        "Allow", allow);
}

void routes_judge(struct admin_request *request)
{
    struct call call = {.admin = request->admin, .request = request};
    char *path = request->target;
    char *end = path + strcspn(path, "?");
    call.query = *end ? end + 1 : end;
    *end = '\0';
    const char *raw = NULL;
    size_t len = 0;
    const struct route *route = find_route(path, &raw, &len);
    if (!route) {
        admin_answer_error(request, 404, "not-found",
                           "There is nothing at this path; docs/protocol.md lists the API.", 0);
        return;
    }
    if (!check_access(&call, route->access))
        return;
    route_handler handler = find_handler(route, request->method);
    if (!handler)
        answer_method(&call, route);
    else if (check_name(&call, route->name, path + (raw ? raw - path : 0), len))
        handler(&call);
}
