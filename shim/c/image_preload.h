// SPDX-License-Identifier: Apache-2.0
// The image's own /etc/ld.so.preload, which ours is going to hide and therefore has to contain. Whatever is
// in the image was written by a stranger: it is looked up as if its root were the root, and only a regular
// file is opened.
#pragma once

#include <stdbool.h>

#include "bundle.h"
#include "bytes.h"

enum { IMAGE_PRELOAD_MAX = 64 << 10 };

// Empty where the image has none. False: `problem` has the sentence.
bool image_preload_read(const struct bundle *b, struct bytes *out, struct bytes *problem);
