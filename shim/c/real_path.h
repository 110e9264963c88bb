// SPDX-License-Identifier: Apache-2.0
// The path that a path leads to, links followed; asked of the kernel, which has walked it.
#pragma once

#include "bytes.h"

// The path itself where it leads nowhere.
void real_path(struct bytes *out, const char *path);
// "/proc/self/fd/7": an open descriptor as a path.
void descriptor_path(struct bytes *out, int fd);
