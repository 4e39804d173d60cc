/* ticket_keys.c: from the key sections to keys that can be used, or to what is wrong with them. */
#include "conf/load.h"

#include <errno.h>
#include <string.h>

static struct load_slot slot_of(struct load *load, const struct conf_ticket_key *from,
                                const char *name)
{
    struct load_slot slot = {0};
    struct buf why = {0};
    (void)load_slot(load, conf_key_find("key", bytes_str(name)), bytes_str(from->name), &slot,
                    &why);
    buf_fini(&why);
    return slot;
}

static void tell(struct load *load, const struct conf_ticket_key *from, const char *name,
                 const char *why)
{
    struct load_slot slot = slot_of(load, from, name);
    load_tell(load, load->errors, &slot, NULL, bytes_str(why));
}

/* A relative path of the conf file counts from its folder, one of -o from the working directory. */
static void print_path(struct load *load, const struct conf_ticket_key *from, struct buf *out)
{
    struct load_slot slot = slot_of(load, from, "file");
    const char *slash = slot.origin && *slot.origin > 0 ? strrchr(load->label, '/') : NULL;
    if (slash && from->file[0] != '/')
        buf_bytes(out, bytes_of(load->label, (size_t)(slash + 1 - load->label)));
    buf_bytes(out, bytes_str(from->file));
    BUF_LIT(out, "\0");
}

static void add_file(struct load *load, const struct conf_ticket_key *from)
{
    struct buf path = {0};
    struct buf text = {0};
    const char *why = NULL;
    print_path(load, from, &path);
    int result = path.failed ? ENOMEM : load_read(path.data, AUTH_KEY_FILE_MAX, &text);
    buf_fini(&path);
    if (result != 0)
        why = strerror(result);
    else if (text.len > AUTH_KEY_FILE_MAX)
        why = "larger than 64 KiB: this is no key";
    else
        why = auth_keys_add_file(load->conf->auth_keys, bytes_str(from->name), from->alg,
                                 buf_view(&text));
    if (why)
        tell(load, from, "file", why);
    if (text.data)
        explicit_bzero(text.data, text.cap);
    buf_fini(&text);
}

static void add(struct load *load, const struct conf_ticket_key *from)
{
    bool secret = from->secret[0] != '\0';
    bool file = from->file[0] != '\0';
    if (secret && from->alg != AUTH_HS256)
        tell(load, from, "secret",
             "only HS256 has a secret; RS256 and ES256 take the public key from file");
    else if (secret && file)
        tell(load, from, "file", "secret is set too; one of them");
    else if (!secret && !file)
        tell(load, from, from->alg == AUTH_HS256 ? "secret" : "file",
             from->alg == AUTH_HS256 ? "one of secret and file must be set"
                                     : "must name a file with the public key in PEM");
    else if (file)
        add_file(load, from);
    else {
        const char *why = auth_keys_add_secret(load->conf->auth_keys, bytes_str(from->name),
                                               bytes_str(from->secret));
        if (why)
            tell(load, from, "secret", why);
    }
}

void load_ticket_keys(struct load *load)
{
    struct conf *conf = load->conf;
    if (conf->ticket_key_count == 0)
        return;
    conf->auth_keys = auth_keys_create();
    if (!conf->auth_keys) {
        BUF_LIT(load->errors, "out of memory while reading the keys\n");
        return;
    }
    for (uint32_t i = 0; i < conf->ticket_key_count; i++)
        add(load, &conf->ticket_keys[i]);
}
