// SPDX-License-Identifier: Apache-2.0
#include "image_preload.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "image_root.h"
#include "sentence.h"

static bool refuse(struct bytes *problem, const char *code, const char *why) {
    sentence_why(problem, code, WHY("the image's /etc/ld.so.preload ", why));
    return false;
}

static bool read_regular(int path, struct bytes *out, struct bytes *problem) {
    int fd = image_reopen(path, S_IFREG);
    bool good = fd >= 0 && image_read(fd, IMAGE_PRELOAD_MAX, out);
    if (fd >= 0)
        close(fd);
    if (good && out->n <= IMAGE_PRELOAD_MAX)
        return true;
    return refuse(problem, "GP302", good ? "is larger than 64 KiB" : "cannot be read");
}

bool image_preload_read(int root, struct bytes *out, struct bytes *problem) {
    struct stat is;
    int path = image_find(root, "etc/ld.so.preload");
    if (path < 0 && errno == ENOSYS) {
        sentence_why(problem, "GP302", WHY("its kernel has no openat2 (Linux 5.6; 5.10 is needed)"));
        return false;
    }
    if (path < 0)
        return true;
    bool known = fstat(path, &is) == 0;
    if (known && S_ISREG(is.st_mode))
        return read_regular(path, out, problem);
    close(path);
    // In any other file the loader finds no libraries either, and ours can be mounted over it.
    return !known || !S_ISDIR(is.st_mode) ||
           refuse(problem, "GP311", "is a folder. Remove it from the image");
}
