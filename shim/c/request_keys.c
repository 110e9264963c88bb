// SPDX-License-Identifier: Apache-2.0
#include "request_keys.h"

#include <string.h>
#include <strings.h>

// How the strings of env and the keys of annotations begin, in any case: a misspelt request is the daemon's
// to refuse. "gpuportion.io" without its slash, which may be escaped.
static const char *const BEGINNINGS[] = {"GPU_", "NVIDIA_GPU_MEM", "gpuportion.io"};
// Looks like ours and is not (gpuportion.shim.request.FOREIGN).
static const char *const FOREIGN[] = {"GPU_MEMORY_UTILIZATION="};

static bool begins_with_one(const char *text, size_t n, const char *const *all, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (n >= strlen(all[i]) && strncasecmp(text, all[i], strlen(all[i])) == 0)
            return true;
    return false;
}

static bool is_key(const char *text, size_t n) {
    return begins_with_one(text, n, BEGINNINGS, sizeof BEGINNINGS / sizeof *BEGINNINGS) &&
           !begins_with_one(text, n, FOREIGN, sizeof FOREIGN / sizeof *FOREIGN);
}

static bool shows_a_key(const char *text, size_t n) {
    const char *end = text + n;
    for (const char *at = text; (at = memchr(at, '"', (size_t)(end - at))) != NULL;)
        if (at++, is_key(at, (size_t)(end - at)))
            return true;
    return false;
}

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// A key can be written as "\u0047PU_MEMORY_LIMIT". No writer escapes these characters without need, so one
// that did is worth a question to the daemon.
static bool escapes_a_key_character(const char *digits) {
    int high = hex(digits[2]), low = hex(digits[3]);
    if (high < 0 || low < 0)
        return false;
    int c = high << 4 | low, lower = c | 0x20;
    return (lower >= 'a' && lower <= 'z') || c == '_' || c == '.';
}

static bool hides_a_key(const char *text, size_t n) {
    const char *end = text + n;
    for (const char *at = text; (at = memmem(at, (size_t)(end - at), "\\u00", 4)) != NULL; at += 4)
        if (end - at >= 6 && escapes_a_key_character(at + 2))
            return true;
    return false;
}

bool request_keys_possible(const char *text, size_t n) {
    return n > 0 && (shows_a_key(text, n) || hides_a_key(text, n));
}
