// SPDX-License-Identifier: Apache-2.0
#include "json_write.h"

#include <stdint.h>
#include <string.h>

// The least character that needs so many bytes: a longer form of a smaller one is no UTF-8.
static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};

static size_t length_by_first_byte(uint8_t first) {
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first < 0xe0)
        return 2;
    if (first >= 0xe0 && first < 0xf0)
        return 3;
    return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

// Bytes of the UTF-8 character at `at`, 0 where there is none.
static size_t character(const char *at, size_t left) {
    size_t n = length_by_first_byte((uint8_t)*at);
    if (n <= 1 || n > left)
        return n > left ? 0 : n;
    uint32_t c = (uint8_t)*at & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if (((uint8_t)at[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | ((uint8_t)at[i] & 0x3f);
    }
    return c < LEAST[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static void add_control(struct bytes *out, uint8_t c) {
    static const char hex[] = "0123456789abcdef";
    const char escape[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    bytes_add(out, escape, sizeof escape);
}

void json_quote(struct bytes *out, const char *text, size_t n) {
    bytes_add(out, "\"", 1);
    for (size_t i = 0, step; i < n; i += step) {
        size_t whole = character(text + i, n - i);
        step = whole == 0 ? 1 : whole;
        if (whole == 0)
            bytes_text(out, "\xef\xbf\xbd");
        else if (text[i] == '\n')
            bytes_text(out, "\\n");
        else if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            add_control(out, (uint8_t)text[i]);
        else {
            if (text[i] == '"' || text[i] == '\\')
                bytes_add(out, "\\", 1);
            bytes_add(out, text + i, whole);
        }
    }
    bytes_add(out, "\"", 1);
}

static void put_name(struct bytes *out, const char *name) {
    if (out->n > 0 && out->at[out->n - 1] != '{')
        bytes_add(out, ",", 1);
    json_quote(out, name, strlen(name));
    bytes_add(out, ":", 1);
}

void json_put_text(struct bytes *out, const char *name, const char *text) {
    put_name(out, name);
    json_quote(out, text, strlen(text));
}

void json_put_number(struct bytes *out, const char *name, long long value) {
    put_name(out, name);
    bytes_number(out, value);
}
