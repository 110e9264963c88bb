// SPDX-License-Identifier: Apache-2.0
// The state that an OCI runtime writes to a hook's stdin. Advisory: what must be right (socket, token, id)
// comes as arguments, since runtimes differ in what they write here.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "bytes.h"

struct state {
    int pid;
};

// `id` NULL: not compared. False: `problem` has the sentence.
bool state_parse(const char *text, size_t n, const char *id, struct state *out, struct bytes *problem);
