// SPDX-License-Identifier: Apache-2.0
#include "image_preload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "json_scan.h"
#include "real_path.h"
#include "sentence.h"

enum { RACES = 16 };

// -1 where config.json names no root filesystem, or one that is not there: the runtime says so better.
static int open_root(const struct bundle *b) {
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
static int find_within(int root) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    for (int i = 0; i < RACES; i++) {
        int fd = (int)syscall(SYS_openat2, root, "etc/ld.so.preload", &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN) // EAGAIN: something was renamed while the path was walked
            return fd;
    }
    return -1;
}

static int reopen(int path) {
    struct bytes name = {0};
    descriptor_path(&name, path);
    int fd = open(bytes_c(&name), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bytes_free(&name);
    return fd;
}

static bool read_bounded(int fd, struct bytes *out) {
    bytes_reserve(out, IMAGE_PRELOAD_MAX + 1);
    while (out->n <= IMAGE_PRELOAD_MAX) {
        ssize_t got = read(fd, out->at + out->n, IMAGE_PRELOAD_MAX + 1 - out->n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        out->n += (size_t)got;
    }
    return true;
}

static bool read_regular(int path, struct bytes *out, struct bytes *problem) {
    struct stat is;
    if (fstat(path, &is) != 0 || !S_ISREG(is.st_mode))
        return true; // the loader finds no libraries in it either
    int fd = reopen(path);
    bool good = fd >= 0 && read_bounded(fd, out);
    if (fd >= 0)
        close(fd);
    if (good && out->n <= IMAGE_PRELOAD_MAX)
        return true;
    sentence_why(problem, "GP302",
                 WHY("the image's /etc/ld.so.preload ", good ? "is larger than 64 KiB" : "cannot be read"));
    return false;
}

bool image_preload_read(const struct bundle *b, struct bytes *out, struct bytes *problem) {
    int root = open_root(b);
    if (root < 0)
        return true;
    int path = find_within(root);
    int error = errno;
    close(root);
    if (path < 0 && error == ENOSYS) {
        sentence_why(problem, "GP302", WHY("its kernel has no openat2 (Linux 5.6; 5.10 is needed)"));
        return false;
    }
    bool good = path < 0 || read_regular(path, out, problem);
    if (path >= 0)
        close(path);
    return good;
}
