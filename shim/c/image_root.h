// SPDX-License-Identifier: Apache-2.0
// The root filesystem of a container that is about to be created. Whatever is in it was written by a
// stranger: a path is looked up as if the image's root were the root, and nothing but regular files and
// folders is opened.
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "bundle.h"
#include "bytes.h"

// O_PATH. -1 where config.json names no root filesystem, or one that is not there: the runtime says so
// better.
int image_root_open(const struct bundle *b);
// O_PATH as well; -1 and errno where there is nothing, or no way to it within the image.
int image_find(int root, const char *path);
// The same, but a link at its end is not followed.
int image_entry(int root, const char *path);
// The file itself, for reading; `path` is closed. -1 where it is not of the kind (S_IFREG, S_IFDIR) or can't
// be opened.
int image_reopen(int path, mode_t kind);
// Reads up to `most` bytes, and one more where there are more.
bool image_read(int fd, size_t most, struct bytes *out);
