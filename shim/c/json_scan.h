// SPDX-License-Identifier: Apache-2.0
// Finds a member in a JSON text without building a tree. What it accepts is RFC 8259 (tests compare it with
// Python's json), except that nesting is bounded and the bytes within strings need not be UTF-8. Knows
// nothing of OCI.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"

// A slice of text; as a value it begins and ends with the value itself.
struct json {
    const char *at, *end;
};

// The one value that the whole text is; false where it is not one JSON value.
bool json_document(struct json text, struct json *value);
// A member of an object; the last of several with one name, as Go's and Python's parsers have it.
bool json_member(struct json object, const char *name, struct json *value);
// The next value of an array: `rest` is the array itself at first, and then what this left of it.
bool json_next(struct json *rest, struct json *value);
// The characters of a string, UTF-8; false for anything else and for a string with a U+0000 in it.
bool json_string(struct json value, struct bytes *out);
// False for what is not an integer of at most 18 digits.
bool json_integer(struct json value, int64_t *out);
