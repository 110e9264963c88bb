// SPDX-License-Identifier: Apache-2.0
// What the C programs say when they refuse: the templates of gpuportion.errors, filled in. Texts of the
// system (strerror) stay out: "permission denied" and its like change the exit code of docker.
#pragma once

#include <stdbool.h>

#include "bytes.h"
#include "wire.h"

struct blank {
    const char *name, *text;
};

// `GP302 this node ...`; the blanks end with a name of NULL.
void sentence(struct bytes *out, const char *code, const struct blank *blanks);
// The sentences with one blank, {why}, whose text is joined from parts up to a NULL.
void sentence_why(struct bytes *out, const char *code, const char *const *parts);
#define WHY(...) ((const char *const[]){__VA_ARGS__, NULL})

// True where the daemon did as asked; else `out` says what the user must know.
bool sentence_of_answer(struct bytes *out, const char *socket, enum wire_end end, struct wire_answer *answer);
