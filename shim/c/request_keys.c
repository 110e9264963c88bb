// SPDX-License-Identifier: Apache-2.0
#include "request_keys.h"

#include <ctype.h>
#include <string.h>

// How the strings of env and the keys of annotations begin. "gpuportion.io" without its slash: that may be
// escaped.
static const char *const BEGINNINGS[] = {
    "\"GPU_MEM",    "\"GPU_FRACTION", "\"GPU_COMPUTE",    "\"GPU_MIG",       "\"GPU_COUNT",
    "\"GPU_SELECT", "\"GPU_ROLE",     "\"NVIDIA_GPU_MEM", "\"gpuportion.io",
};
enum { N_BEGINNINGS = sizeof BEGINNINGS / sizeof *BEGINNINGS };

static int hex(char c) {
    return isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10;
}

// A key can be written as "\u0047PU_MEMORY_LIMIT". No writer escapes these characters without need, so one
// that did is worth a question to the daemon.
static bool escapes_a_key_character(const char *digits) {
    if (!isxdigit((unsigned char)digits[2]) || !isxdigit((unsigned char)digits[3]))
        return false;
    int c = hex(digits[2]) << 4 | hex(digits[3]);
    return c < 0x80 && (isalpha(c) || c == '_' || c == '.');
}

static bool hides_a_key(const char *text, size_t n) {
    const char *end = text + n;
    for (const char *at = text; (at = memmem(at, (size_t)(end - at), "\\u00", 4)) != NULL; at += 4)
        if (end - at >= 6 && escapes_a_key_character(at + 2))
            return true;
    return false;
}

bool request_keys_possible(const char *text, size_t n) {
    for (int i = 0; i < N_BEGINNINGS; i++)
        if (memmem(text, n, BEGINNINGS[i], strlen(BEGINNINGS[i])) != NULL)
            return true;
    return hides_a_key(text, n);
}
