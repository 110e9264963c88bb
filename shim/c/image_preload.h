// SPDX-License-Identifier: Apache-2.0
// The image's own /etc/ld.so.preload, which ours is going to hide and therefore has to contain.
#pragma once

#include <stdbool.h>

#include "bytes.h"

enum { IMAGE_PRELOAD_MAX = 64 << 10 };

// `root`: of image_root_open. Empty where the image has none. False: `problem` has the sentence.
bool image_preload_read(int root, struct bytes *out, struct bytes *problem);
