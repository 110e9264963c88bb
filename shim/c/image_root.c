// SPDX-License-Identifier: Apache-2.0
#include "image_root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "json_scan.h"
#include "real_path.h"

enum { RACES = 16 };

int image_root_open(const struct bundle *b) {
    struct json config, root, path;
    struct bytes name = {0};
    int found = -1;
    if (json_document((struct json){b->text.at, b->text.at + b->text.n}, &config) &&
        json_member(config, "root", &root) && json_member(root, "path", &path) && json_string(path, &name)) {
        int bundle = open(b->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        found = openat(bundle, bytes_c(&name), O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (bundle >= 0)
            close(bundle);
    }
    bytes_free(&name);
    return found;
}

// O_PATH: a device node of the image must not be opened, and a fifo must not be waited for.
static int look(int root, const char *path, uint64_t more) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | more,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    for (int i = 0; i < RACES; i++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN) // EAGAIN: something was renamed while the path was walked
            return fd;
    }
    return -1;
}

int image_find(int root, const char *path) {
    return look(root, path, 0);
}

int image_entry(int root, const char *path) {
    return look(root, path, O_NOFOLLOW);
}

int image_reopen(int path, mode_t kind) {
    struct bytes name = {0};
    struct stat is;
    int fd = -1;
    if (path < 0)
        return -1;
    descriptor_path(&name, path);
    if (fstat(path, &is) == 0 && (is.st_mode & S_IFMT) == kind)
        fd = open(bytes_c(&name), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    close(path);
    bytes_free(&name);
    return fd;
}

bool image_read(int fd, size_t most, struct bytes *out) {
    bytes_reserve(out, most + 1);
    while (out->n <= most) {
        ssize_t got = read(fd, out->at + out->n, most + 1 - out->n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        out->n += (size_t)got;
    }
    return true;
}
