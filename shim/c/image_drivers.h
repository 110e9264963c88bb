// SPDX-License-Identifier: Apache-2.0
// Files of an NVIDIA driver that the image carries (cuda-compat above all). Opened by their paths they would
// serve beside the library that counts, so the daemon has others mounted over them. Looked for where NVIDIA's
// packages put them, and in the folders that the image's loader is told of. What becomes of them is the
// daemon's.
#pragma once

#include <stdbool.h>

#include "bundle.h"
#include "bytes.h"

enum { IMAGE_DRIVERS_MAX = 256 };

// A JSON array of {"name": as it's found by, "path": the file itself, within the image}, each path once.
// False: `problem` has the sentence.
bool image_drivers_find(const struct bundle *b, int root, struct bytes *out, struct bytes *problem);
