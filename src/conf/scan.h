/* scan.h: blanks the comments of a conf file, and finds what libconfuse would pass over silently.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stddef.h>

/* Replaces comments (#, // at the start of a word, slash-star) by spaces; line ends stay. Checks
 * that there is no NUL byte, no bare *, and that strings, comments and braces are closed.
 * Returns NULL, or what is wrong with its line in *line. */
const char *scan_comments(char *text, size_t len, int *line);
