#include "conf/conf.h"

#include "base/check.h"
#include "conf/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int load_read(const char *path, size_t max, struct buf *out)
{
    enum { CHUNK = 16384 };
    /* A pipe without a writer must not hang the daemon. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int result = fd < 0 ? errno : 0;
    while (result == 0 && out->len <= max) {
        if (!buf_reserve(out, CHUNK)) {
            result = ENOMEM;
            break;
        }
        ssize_t got = read(fd, out->data + out->len, CHUNK);
        if (got > 0)
            out->len += (size_t)got;
        else if (got == 0)
            break;
        else if (errno != EINTR)
            result = errno;
    }
    if (fd >= 0)
        close(fd);
    return result;
}

struct conf *conf_load(const char *path, const struct conf_override *overrides, size_t count,
                       struct buf *error, struct buf *warnings)
{
    struct buf text = {0};
    struct conf *conf = NULL;
    int result = path ? load_read(path, LOAD_TEXT_MAX, &text) : 0;
    if (result == 0)
        conf = load_conf(path ? path : "built-in conf", buf_view(&text), overrides, count, error,
                         warnings);
    else
        buf_printf(error, "%s: cannot be read: %s\n", path, strerror(result));
    buf_fini(&text);
    return conf;
}

struct conf *conf_ref(struct conf *conf)
{
    atomic_fetch_add_explicit(&conf->refs, 1, memory_order_relaxed);
    return conf;
}

void conf_unref(struct conf *conf)
{
    if (!conf)
        return;
    uint32_t before = atomic_fetch_sub_explicit(&conf->refs, 1, memory_order_acq_rel);
    REQUIRE(before > 0);
    if (before != 1)
        return;
    auth_keys_destroy(conf->auth_keys);
    free(conf);
}
