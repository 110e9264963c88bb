// SPDX-License-Identifier: Apache-2.0
// Where the spec's mounts will lie whose destinations lead through links of the image: only here can that be
// seen, and what is mounted on there hides the image's files. What follows from it is the daemon's.
#pragma once

#include "bundle.h"
#include "bytes.h"

// A JSON array of {"name": the destination as the spec has it, "path": where it leads, within the image}. A
// destination that leads over another mount's is left out: what is there then, the image doesn't tell.
void image_mounts_find(const struct bundle *b, int root, struct bytes *out);
