// SPDX-License-Identifier: Apache-2.0
#include "json_scan.h"

#include <string.h>

enum { DEEPEST = 512 };

// What an object's members are compared with while they are skipped; name NULL: nothing is looked for.
struct wanted {
    const char *name;
    struct json value;
    bool found;
};

static bool skip_value(struct json *text, int depth);

static void skip_space(struct json *text) {
    while (text->at < text->end && strchr(" \t\n\r", *text->at) != NULL && *text->at != '\0')
        text->at++;
}

static bool take(struct json *text, char c) {
    if (text->at == text->end || *text->at != c)
        return false;
    text->at++;
    return true;
}

static bool take_word(struct json *text, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(text->end - text->at) < n || memcmp(text->at, word, n) != 0)
        return false;
    text->at += n;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool take_hex4(struct json *text, uint32_t *out) {
    if (text->end - text->at < 4)
        return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*text->at++);
        if (digit < 0)
            return false;
        *out = *out << 4 | (uint32_t)digit;
    }
    return true;
}

static void add_utf8(struct bytes *out, uint32_t c) {
    static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    char encoded[4];
    for (int i = n - 1; i > 0; i--, c >>= 6)
        encoded[i] = (char)(0x80 | (c & 0x3f));
    encoded[0] = (char)(first[n] | c);
    bytes_add(out, encoded, (size_t)n);
}

static bool high_surrogate(uint32_t c) {
    return c >= 0xd800 && c < 0xdc00;
}
static bool low_surrogate(uint32_t c) {
    return c >= 0xdc00 && c < 0xe000;
}

// After "\u". Half of a surrogate pair is no character: U+FFFD, as in Go.
static bool take_unicode(struct json *text, uint32_t *c) {
    if (!take_hex4(text, c))
        return false;
    struct json ahead = *text;
    uint32_t low;
    if (high_surrogate(*c) && take_word(&ahead, "\\u") && take_hex4(&ahead, &low) && low_surrogate(low)) {
        *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
        *text = ahead;
    } else if (high_surrogate(*c) || low_surrogate(*c)) {
        *c = 0xfffd;
    }
    return true;
}

// After a backslash.
static bool take_escape(struct json *text, uint32_t *c) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (take(text, 'u'))
        return take_unicode(text, c);
    const char *letter = text->at < text->end ? memchr(letters, *text->at, sizeof letters - 1) : NULL;
    if (letter == NULL)
        return false;
    *c = (uint32_t)meanings[letter - letters];
    text->at++;
    return true;
}

// out NULL: only step over it.
static bool take_string(struct json *text, struct bytes *out) {
    if (!take(text, '"'))
        return false;
    while (text->at < text->end && (uint8_t)*text->at >= 0x20) {
        uint32_t c;
        if (take(text, '"'))
            return true;
        if (take(text, '\\')) {
            if (!take_escape(text, &c))
                return false;
            if (out != NULL)
                add_utf8(out, c);
        } else {
            if (out != NULL)
                bytes_add(out, text->at, 1);
            text->at++;
        }
    }
    return false;
}

static bool take_digits(struct json *text) {
    const char *began = text->at;
    while (text->at < text->end && *text->at >= '0' && *text->at <= '9')
        text->at++;
    return text->at > began;
}

static bool skip_number(struct json *text) {
    take(text, '-');
    if (!take(text, '0') && !take_digits(text))
        return false;
    if (take(text, '.') && !take_digits(text))
        return false;
    if (take(text, 'e') || take(text, 'E')) {
        if (!take(text, '+'))
            take(text, '-');
        return take_digits(text);
    }
    return true;
}

static bool key_is(struct json key, const char *name) {
    struct bytes decoded = {0};
    size_t n = strlen(name);
    bool same = take_string(&key, &decoded) && decoded.n == n && memcmp(bytes_c(&decoded), name, n) == 0;
    bytes_free(&decoded);
    return same;
}

static bool skip_member(struct json *text, int depth, struct wanted *wanted) {
    skip_space(text);
    struct json key = *text;
    if (!take_string(text, NULL))
        return false;
    key.end = text->at;
    skip_space(text);
    if (!take(text, ':'))
        return false;
    skip_space(text);
    struct json value = {text->at, text->end};
    if (!skip_value(text, depth))
        return false;
    value.end = text->at;
    if (wanted->name != NULL && key_is(key, wanted->name)) {
        wanted->value = value;
        wanted->found = true;
    }
    return true;
}

static bool skip_object(struct json *text, int depth, struct wanted *wanted) {
    if (!take(text, '{'))
        return false;
    skip_space(text);
    if (take(text, '}'))
        return true;
    do {
        if (!skip_member(text, depth, wanted))
            return false;
        skip_space(text);
    } while (take(text, ','));
    return take(text, '}');
}

static bool skip_array(struct json *text, int depth) {
    if (!take(text, '['))
        return false;
    skip_space(text);
    if (take(text, ']'))
        return true;
    do {
        skip_space(text);
        if (!skip_value(text, depth))
            return false;
        skip_space(text);
    } while (take(text, ','));
    return take(text, ']');
}

static bool skip_value(struct json *text, int depth) {
    struct wanted nothing = {0};
    if (text->at == text->end || depth > DEEPEST)
        return false;
    switch (*text->at) {
    case '{':
        return skip_object(text, depth + 1, &nothing);
    case '[':
        return skip_array(text, depth + 1);
    case '"':
        return take_string(text, NULL);
    case 't':
        return take_word(text, "true");
    case 'f':
        return take_word(text, "false");
    case 'n':
        return take_word(text, "null");
    default:
        return skip_number(text);
    }
}

bool json_document(struct json text, struct json *value) {
    skip_space(&text);
    *value = text;
    if (!skip_value(&text, 0))
        return false;
    value->end = text.at;
    skip_space(&text);
    return text.at == text.end;
}

bool json_member(struct json object, const char *name, struct json *value) {
    struct wanted wanted = {.name = name};
    if (!skip_object(&object, 1, &wanted) || !wanted.found)
        return false;
    *value = wanted.value;
    return true;
}

bool json_next(struct json *rest, struct json *value) {
    if (!take(rest, '[') && !take(rest, ','))
        return false;
    skip_space(rest);
    *value = *rest;
    if (!skip_value(rest, 1))
        return false; // the end of an empty one
    value->end = rest->at;
    skip_space(rest);
    return true;
}

bool json_string(struct json value, struct bytes *out) {
    out->n = 0;
    if (!take_string(&value, out) || value.at != value.end)
        return false;
    return memchr(bytes_c(out), '\0', out->n) == NULL;
}

bool json_integer(struct json value, int64_t *out) {
    bool negative = take(&value, '-');
    if (value.at == value.end || value.end - value.at > 18)
        return false;
    int64_t sum = 0;
    for (; value.at < value.end; value.at++) {
        if (*value.at < '0' || *value.at > '9')
            return false;
        sum = sum * 10 + (*value.at - '0');
    }
    *out = negative ? -sum : sum;
    return true;
}
