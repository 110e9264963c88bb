// SPDX-License-Identifier: Apache-2.0
// How a refusal reaches the user: a line in the engine's --log file, which is all that docker and containerd
// show, and the text on stderr for everyone else. Never stdout: that is the container's.
#pragma once

#include <time.h>

#include "argv.h"
#include "bytes.h"

void report(const struct command *command, enum dialect dialect, struct bytes *text);
// One line of the log; format "text" is runc's, anything else is JSON. `at` is seconds since 1970.
void report_line(struct bytes *out, const char *format, const char *text, size_t n, time_t at);
