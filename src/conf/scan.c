#include "conf/scan.h"

#include <stdbool.h>
#include <string.h>

/* Where a scan stands in the text. */
struct scan {
    char *text;
    size_t len;
    size_t at;
    int line;
    size_t depth;   /* of open braces */
    int brace_line; /* of the outermost open one */
};

static void blank(struct scan *scan)
{
    if (scan->text[scan->at] == '\n')
        scan->line++;
    else
        scan->text[scan->at] = ' ';
    scan->at++;
}

static const char *skip_string(struct scan *scan)
{
    char quote = scan->text[scan->at++];
    int line = scan->line;
    for (; scan->at < scan->len; scan->at++) {
        char c = scan->text[scan->at];
        if (c == quote) {
            scan->at++;
            return NULL;
        }
        if (c == '\\' && scan->at + 1 < scan->len)
            c = scan->text[++scan->at];
        if (c == '\n')
            scan->line++;
    }
    scan->line = line;
    return "a string that begins here is not closed";
}

static const char *blank_block(struct scan *scan)
{
    int line = scan->line;
    while (scan->at + 1 < scan->len) {
        bool last = scan->text[scan->at] == '*' && scan->text[scan->at + 1] == '/';
        blank(scan);
        if (last) {
            blank(scan);
            return NULL;
        }
    }
    scan->line = line;
    return "a comment that begins here is not closed";
}

static void count_brace(struct scan *scan, char c)
{
    if (c == '{' && scan->depth++ == 0)
        scan->brace_line = scan->line;
    if (c == '}' && scan->depth > 0)
        scan->depth--;
}

/* Passes over one character, comment or string. Sets *word to whether an unquoted word goes on
 * behind it: within one, // is text, as in redis://host. Returns what is wrong at scan->line, or
 * NULL. */
static const char *scan_next(struct scan *scan, bool *word)
{
    char c = scan->text[scan->at];
    char next = '\0';
    if (scan->at + 1 < scan->len)
        next = scan->text[scan->at + 1];
    bool inside = *word;
    *word = false;
    if (c == '\0')
        return "there is a NUL byte";
    if (c == '*')
        return "* must be quoted: \"*\"";
    if (c == '"' || c == '\'')
        return skip_string(scan);
    if (c == '/' && next == '*') {
        blank(scan);
        blank(scan);
        return blank_block(scan);
    }
    if (c == '#' || (c == '/' && next == '/' && !inside)) {
        while (scan->at < scan->len && scan->text[scan->at] != '\n')
            blank(scan);
        return NULL;
    }
    count_brace(scan, c);
    if (c == '\n')
        scan->line++;
    scan->at++;
    *word = !strchr(" \t\r\n={}()+,", c);
    return NULL;
}

const char *scan_comments(char *text, size_t len, int *line)
{
    struct scan scan = {.len = len, .line = 1};
    scan.text = text;
    bool word = false;
    const char *wrong = NULL;
    while (scan.at < scan.len && !wrong)
        wrong = scan_next(&scan, &word);
    if (!wrong && scan.depth > 0) {
        scan.line = scan.brace_line;
        wrong = "a section that begins here is not closed: a } is missing";
    }
    if (wrong)
        *line = scan.line;
    return wrong;
}
