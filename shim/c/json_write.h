// SPDX-License-Identifier: Apache-2.0
// Writes JSON strings and members. What is not UTF-8 becomes U+FFFD: a reader of the log, or the daemon, must
// never meet bytes that its own parser refuses.
#pragma once

#include "bytes.h"

// The text in quotes, escaped.
void json_quote(struct bytes *out, const char *text, size_t n);
// `"name":"text"` and `"name":7`, with a comma before them unless they follow a brace.
void json_put_text(struct bytes *out, const char *name, const char *text);
void json_put_number(struct bytes *out, const char *name, long long value);
