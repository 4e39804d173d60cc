#include "ws/head.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <strings.h>

/* Scanning: each function returns HEAD_DONE, HEAD_MORE when the text ends first, or a negated
 * status. */

struct cursor {
    const char *at;
    const char *end;
};

static bool is_alpha_digit(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_token(unsigned char c)
{
    return is_alpha_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

/* More than RFC 3986 allows, since browsers leave |, { and their like in a query as they are. */
static bool is_target(unsigned char c)
{
    return c > ' ' && c < 0x7f && c != '#';
}

static bool is_value(unsigned char c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

static bool is_host(unsigned char c)
{
    return is_alpha_digit(c) || (c != '\0' && strchr("-._~%!$&'()*+,;=:[]", c));
}

static bool is_all(struct bytes text, bool (*allowed)(unsigned char))
{
    for (size_t i = 0; i < text.len; i++) {
        if (!allowed((unsigned char)text.data[i]))
            return false;
    }
    return true;
}

/* Takes what is allowed, up to `stop`, which is skipped. */
static int scan_run(struct cursor *in, bool (*allowed)(unsigned char), char stop, struct bytes *run)
{
    const char *start = in->at;
    for (; in->at < in->end; in->at++) {
        if (*in->at == stop) {
            *run = bytes_of(start, (size_t)(in->at - start));
            in->at++;
            return HEAD_DONE;
        }
        if (!allowed((unsigned char)*in->at))
            return -400;
    }
    return HEAD_MORE;
}

static int scan_byte(struct cursor *in, char byte)
{
    if (in->at == in->end)
        return HEAD_MORE;
    return *in->at++ == byte ? HEAD_DONE : -400;
}

static int scan_version(struct cursor *in)
{
    int rc = HEAD_DONE;
    for (const char *expected = "HTTP/"; *expected && rc == HEAD_DONE; expected++)
        rc = scan_byte(in, *expected);
    if (rc != HEAD_DONE)
        return rc;
    if (in->at == in->end)
        return HEAD_MORE;
    if (*in->at != '1')
        return *in->at >= '0' && *in->at <= '9' ? -505 : -400;
    in->at++;
    if ((rc = scan_byte(in, '.')) != HEAD_DONE)
        return rc;
    if (in->at == in->end)
        return HEAD_MORE;
    char minor = *in->at++;
    if (minor < '1' || minor > '9')
        return -400;
    if ((rc = scan_byte(in, '\r')) == HEAD_DONE)
        rc = scan_byte(in, '\n');
    return rc;
}

static int scan_request_line(struct cursor *in, struct head *head)
{
    struct bytes target;
    int rc = scan_run(in, is_token, ' ', &head->method);
    if (rc != HEAD_DONE)
        return rc;
    if (head->method.len == 0)
        return -400;
    if (in->at < in->end && *in->at != '/')
        return -400;
    if ((rc = scan_run(in, is_target, ' ', &target)) != HEAD_DONE)
        return rc;
    const char *mark = memchr(target.data, '?', target.len);
    head->path = target;
    if (mark) {
        head->path.len = (size_t)(mark - target.data);
        head->query = bytes_of(mark + 1, target.len - head->path.len - 1);
    }
    return scan_version(in);
}

/* Header lines */

/* What is gathered over the lines and judged when all are there. */
struct lines {
    unsigned hosts;
    unsigned keys;
    unsigned versions;
    unsigned origins;
    unsigned authorizations;
    struct bytes version;
    struct bytes authorization;
    bool upgrade_websocket;
    bool connection_upgrade;
};

static struct bytes trimmed(struct bytes text)
{
    while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
        text.len--;
    return text;
}

static bool is_same_word(struct bytes text, const char *word)
{
    return text.len == strlen(word) && strncasecmp(text.data, word, text.len) == 0;
}

/* Takes the next part of *rest, up to `separator`. */
static struct bytes split(struct bytes *rest, char separator)
{
    struct bytes part = *rest;
    const char *at = rest->len > 0 ? memchr(rest->data, separator, rest->len) : NULL;
    if (!at) {
        rest->len = 0;
        return part;
    }
    part.len = (size_t)(at - rest->data);
    rest->data = at + 1;
    rest->len -= part.len + 1;
    return part;
}

static bool list_has(struct bytes list, const char *word, bool any_case)
{
    while (list.len > 0) {
        struct bytes item = trimmed(split(&list, ','));
        if (any_case ? is_same_word(item, word) : bytes_is(item, word))
            return true;
    }
    return false;
}

/* A header that may stand once; said again it must say the same. */
static int set_once(unsigned *count, struct bytes *kept, struct bytes value)
{
    if ((*count)++ > 0 && !bytes_equal(*kept, value))
        return -400;
    *kept = value;
    return HEAD_DONE;
}

static int set_host(struct lines *lines, struct head *head, struct bytes value)
{
    if (lines->hosts++ > 0 || !is_all(value, is_host))
        return -400;
    head->host = value;
    return HEAD_DONE;
}

/* The names are told apart by a plain walk: a handshake has about a dozen lines. */
static int apply_line(struct lines *lines, struct head *head, struct bytes name, struct bytes value)
{
    if (is_same_word(name, "Host"))
        return set_host(lines, head, value);
    if (is_same_word(name, "Upgrade")) {
        lines->upgrade_websocket |= list_has(value, "websocket", true);
    } else if (is_same_word(name, "Connection")) {
        lines->connection_upgrade |= list_has(value, "upgrade", true);
    } else if (is_same_word(name, "Sec-WebSocket-Key")) {
        lines->keys++;
        head->key = value;
    } else if (is_same_word(name, "Sec-WebSocket-Version")) {
        return set_once(&lines->versions, &lines->version, value);
    } else if (is_same_word(name, "Sec-WebSocket-Protocol")) {
        head->subprotocol_v1 |= list_has(value, "halley.v1.json", false);
    } else if (is_same_word(name, "Origin")) {
        return set_once(&lines->origins, &head->origin, value);
    } else if (is_same_word(name, "Authorization")) {
        return set_once(&lines->authorizations, &lines->authorization, value);
    } else if (is_same_word(name, "Content-Length")) {
        return bytes_is(value, "0") ? HEAD_DONE : -400;
    } else if (is_same_word(name, "Transfer-Encoding")) {
        return -400;
    }
    return HEAD_DONE;
}

static int scan_line(struct cursor *in, struct lines *lines, struct head *head)
{
    struct bytes name;
    struct bytes value;
    int rc = scan_run(in, is_token, ':', &name);
    if (rc == HEAD_DONE && name.len == 0)
        return -400;
    if (rc == HEAD_DONE)
        rc = scan_run(in, is_value, '\r', &value);
    if (rc == HEAD_DONE)
        rc = scan_byte(in, '\n');
    if (rc == HEAD_DONE)
        rc = apply_line(lines, head, name, trimmed(value));
    return rc;
}

static bool is_base64(unsigned char c)
{
    return is_alpha_digit(c) || c == '+' || c == '/';
}

/* 22 characters carry 132 bits: the last four are not looked at, as most decoders do. */
static bool is_key(struct bytes key)
{
    return key.len == 24 && is_all(bytes_of(key.data, 22), is_base64) &&
           memcmp(key.data + 22, "==", 2) == 0;
}

static struct bytes bearer_token(struct bytes authorization)
{
    struct bytes rest = authorization;
    if (!is_same_word(split(&rest, ' '), "Bearer"))
        return (struct bytes){0};
    return trimmed(rest);
}

static int finish(const struct lines *lines, struct head *head)
{
    if (lines->hosts != 1)
        return -400;
    head->upgrade = lines->upgrade_websocket && lines->connection_upgrade;
    head->version_ok = bytes_is(lines->version, "13");
    head->key_ok = lines->keys == 1 && is_key(head->key);
    head->bearer = bearer_token(lines->authorization);
    return HEAD_DONE;
}

int head_parse(struct bytes text, struct head *head)
{
    if (text.len == 0)
        return HEAD_MORE;
    struct cursor in = {text.data, text.data + text.len};
    struct head parsed = {0};
    struct lines lines = {0};
    int rc = scan_request_line(&in, &parsed);
    for (unsigned count = 0; rc == HEAD_DONE; count++) {
        if (in.at == in.end)
            return HEAD_MORE;
        if (*in.at == '\r')
            break;
        rc = count < HEAD_LINES_MAX ? scan_line(&in, &lines, &parsed) : -431;
    }
    if (rc != HEAD_DONE)
        return rc;
    in.at++;
    if ((rc = scan_byte(&in, '\n')) != HEAD_DONE)
        return rc;
    if ((rc = finish(&lines, &parsed)) != HEAD_DONE)
        return rc;
    parsed.length = (size_t)(in.at - text.data);
    *head = parsed;
    return HEAD_DONE;
}

int head_upgrade_status(const struct head *head)
{
    if (!bytes_is(head->method, "GET"))
        return 405;
    if (!head->upgrade || !head->version_ok)
        return 426;
    return head->key_ok ? 0 : 400;
}

/* Sec-WebSocket-Accept */

enum { SHA1_BYTES = 20 };

static EVP_MD *sha1;
static pthread_once_t sha1_once = PTHREAD_ONCE_INIT;

/* Fetched once for the process: a look-up by name per handshake costs more than the digest. */
static void sha1_fetch(void)
{
    sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
}

static bool sha1_of(struct bytes key, unsigned char digest[SHA1_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    pthread_once(&sha1_once, sha1_fetch);
    EVP_MD_CTX *ctx = sha1 ? EVP_MD_CTX_new() : NULL;
    bool ok =
        ctx && EVP_DigestInit_ex(ctx, sha1, NULL) && EVP_DigestUpdate(ctx, key.data, key.len) &&
        EVP_DigestUpdate(ctx, guid, sizeof(guid) - 1) && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return ok;
}

void head_accept(struct bytes key, char accept[WS_ACCEPT_LEN])
{
    unsigned char digest[SHA1_BYTES] = {0};
    unsigned char text[WS_ACCEPT_LEN + 1];
    /* Out of memory leaves zeros, which the client refuses: it fails this handshake only. */
    if (!sha1_of(key, digest))
        memset(digest, 0, sizeof(digest));
    EVP_EncodeBlock(text, digest, SHA1_BYTES);
    memcpy(accept, text, WS_ACCEPT_LEN);
}

/* Query */

bool query_next(struct bytes *rest, struct bytes *name, struct bytes *raw_value)
{
    while (rest->len > 0) {
        struct bytes pair = split(rest, '&');
        if (pair.len == 0)
            continue;
        *name = split(&pair, '=');
        *raw_value = bytes_of(name->data + name->len, 0);
        if (pair.len > 0)
            *raw_value = pair;
        return true;
    }
    return false;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

ssize_t query_decode(struct bytes raw, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = (char)(raw.data[i] == '+' ? ' ' : raw.data[i]);
        if (c == '%') {
            bool cut = raw.len - i < 3;
            int high = cut ? -1 : hex_digit(raw.data[i + 1]);
            int low = cut ? -1 : hex_digit(raw.data[i + 2]);
            if (high < 0 || low < 0)
                return -1;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (len == cap)
            return -1;
        out[len++] = c;
    }
    return (ssize_t)len;
}
