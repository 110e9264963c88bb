// SPDX-License-Identifier: Apache-2.0
// What a code image (PTX text, cubin, fat binary) says about itself: whether it is one, and which names it
// has.
#pragma once
#include "abi.h"

struct image {
    char
        *names; // NUL-terminated strings, ended by an empty one; NULL: not readable, so any name may be there
    char *ptx;  // the text, or NULL
};

#pragma GCC visibility push(hidden)
CUresult image_read(struct image *image, const void *bytes);
bool image_has(const struct image *image, const char *name);
void image_free(struct image *image);
#pragma GCC visibility pop
