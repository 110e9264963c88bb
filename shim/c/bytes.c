// SPDX-License-Identifier: Apache-2.0
#include "bytes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void out_of_memory(void) {
    static const char text[] = "gpuportion: out of host memory; nothing was started\n";
    ssize_t ignored = write(2, text, sizeof text - 1);
    (void)ignored;
    _exit(1);
}

void bytes_reserve(struct bytes *b, size_t more) {
    size_t want = b->n + more + 1;
    if (want <= b->room)
        return;
    size_t room = want < 256 ? 256 : want + want / 2;
    char *moved = realloc(b->at, room);
    if (moved == NULL)
        out_of_memory();
    b->at = moved;
    b->room = room;
}

void bytes_add(struct bytes *b, const char *from, size_t n) {
    bytes_reserve(b, n);
    if (n > 0)
        memcpy(b->at + b->n, from, n);
    b->n += n;
}

void bytes_text(struct bytes *b, const char *text) {
    bytes_add(b, text, strlen(text));
}

void bytes_number(struct bytes *b, long long value) {
    char digits[24];
    size_t i = sizeof digits;
    unsigned long long left = value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value;
    do
        digits[--i] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (value < 0)
        digits[--i] = '-';
    bytes_add(b, digits + i, sizeof digits - i);
}

const char *bytes_c(struct bytes *b) {
    bytes_reserve(b, 0);
    b->at[b->n] = '\0';
    return b->at;
}

void bytes_free(struct bytes *b) {
    free(b->at);
    *b = (struct bytes){0};
}
