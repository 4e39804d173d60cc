#include "lib/conf_with.h"

#include "base/bytes.h"
#include "conf/load.h"

/* cmocka wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { SETTINGS_MAX = 32 };

struct conf *conf_with(const char *const *ours, const char *const *given)
{
    const char *const *lists[] = {ours, given};
    struct conf_override settings[SETTINGS_MAX];
    struct buf errors = {0};
    struct buf warnings = {0};
    size_t count = 0;
    for (size_t i = 0; i < 2; i++) {
        for (const char *const *at = lists[i]; at && *at; at++) {
            assert_true(count < SETTINGS_MAX);
            settings[count++] = (struct conf_override){*at};
        }
    }
    struct conf *conf = conf_load(NULL, settings, count, &errors, &warnings);
    if (!conf)
        fail_msg("%.*s", (int)errors.len, errors.data);
    buf_fini(&errors);
    buf_fini(&warnings);
    return conf;
}
