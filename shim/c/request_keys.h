// SPDX-License-Identifier: Apache-2.0
// Whether a config.json could hold a request at all. Most containers hold none, and must start without the
// daemon, byte for byte as they are. Looks at the text alone: what a request means, or whether it is one, the
// daemon knows.
#pragma once

#include <stdbool.h>
#include <stddef.h>

bool request_keys_possible(const char *text, size_t n);
