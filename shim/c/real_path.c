// SPDX-License-Identifier: Apache-2.0
#include "real_path.h"

#include <fcntl.h>
#include <unistd.h>

void descriptor_path(struct bytes *out, int fd) {
    bytes_text(out, "/proc/self/fd/");
    bytes_number(out, fd);
}

void real_path(struct bytes *out, const char *path) {
    char target[4096];
    struct bytes link = {0};
    int fd = open(path, O_PATH | O_CLOEXEC);
    descriptor_path(&link, fd);
    ssize_t n = fd < 0 ? -1 : readlink(bytes_c(&link), target, sizeof target);
    if (n > 0 && n < (ssize_t)sizeof target && target[0] == '/')
        bytes_add(out, target, (size_t)n);
    else
        bytes_text(out, path);
    if (fd >= 0)
        close(fd);
    bytes_free(&link);
}
