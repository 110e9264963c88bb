// SPDX-License-Identifier: Apache-2.0
// A text that grows, for programs that do one thing and end: who runs out of memory ends at once, with status
// 1, because a container must never be started by a program that lost its thread.
#pragma once

#include <stddef.h>

struct bytes {
    char *at;
    size_t n, room;
};

void bytes_reserve(struct bytes *b, size_t more);
void bytes_add(struct bytes *b, const char *from, size_t n);
void bytes_text(struct bytes *b, const char *text);
void bytes_number(struct bytes *b, long long value);
// The text with a 0 after it, which does not count.
const char *bytes_c(struct bytes *b);
void bytes_free(struct bytes *b);
