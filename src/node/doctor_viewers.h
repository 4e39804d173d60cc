/* doctor_viewers.h: asks the node that runs by this conf about its viewers' TCP.
 *
 * Threads:   any; no state. Waits for the answer, two seconds at most for each step.
 */
#pragma once

#include "conf/conf.h"

#include <stdio.h>

/* Prints what the node at admin.listen says; returns how many lines are not ok, 0 where none answers. */
int doctor_ask_viewers(const struct conf *conf, FILE *out);

/* Judges what a node's /metrics say (text, ends with a zero). Returns how many lines are not ok. */
int doctor_judge_viewers(const char *metrics, FILE *out);
