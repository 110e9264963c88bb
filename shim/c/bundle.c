// SPDX-License-Identifier: Apache-2.0
#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h> // renameat
#include <string.h>
#include <unistd.h>

#include "image_preload.h"
#include "sentence.h"
#include "wire.h"

enum { LARGEST = WIRE_MAX_BODY - IMAGE_PRELOAD_MAX };

static void split(struct bundle *b, const char *path, const char *config) {
    // crun: any other name than the default is relative to where it was called.
    if (config == NULL || strcmp(config, "config.json") == 0) {
        bytes_text(&b->folder, path);
        bytes_text(&b->file, "config.json");
        return;
    }
    const char *slash = strrchr(config, '/');
    bytes_add(&b->folder, config, slash == NULL ? 0 : (size_t)(slash - config) + 1);
    if (slash == NULL)
        bytes_text(&b->folder, ".");
    bytes_text(&b->file, slash == NULL ? config : slash + 1);
}

static bool refuse(struct bundle *b, struct bytes *problem, const char *why) {
    sentence_why(problem, "GP302", WHY(bytes_c(&b->folder), "/", bytes_c(&b->file), " ", why));
    return false;
}

static bool read_whole(int fd, struct bytes *text, size_t size) {
    bytes_reserve(text, size);
    for (;;) {
        bytes_reserve(text, 4096);
        ssize_t got = read(fd, text->at + text->n, text->room - text->n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        text->n += (size_t)got;
        if (text->n > LARGEST)
            return true;
    }
}

static bool read_config(struct bundle *b, int fd, struct bytes *problem) {
    if (fstat(fd, &b->was) != 0 || !S_ISREG(b->was.st_mode))
        return refuse(b, problem, "is not a regular file");
    if (b->was.st_size > LARGEST)
        return refuse(b, problem, "is larger than 16 MB");
    if (!read_whole(fd, &b->text, (size_t)b->was.st_size))
        return refuse(b, problem, "cannot be read");
    return b->text.n <= LARGEST || refuse(b, problem, "is larger than 16 MB");
}

enum bundle_state bundle_read(struct bundle *b, const char *path, const char *config, struct bytes *problem) {
    b->path = path != NULL ? path : ".";
    split(b, b->path, config);
    int folder = open(bytes_c(&b->folder), O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd =
        folder < 0 ? -1 : openat(folder, bytes_c(&b->file), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int error = errno;
    if (folder >= 0)
        close(folder);
    if (fd < 0 && (error == ENOENT || error == ENOTDIR))
        return BUNDLE_ABSENT;
    if (fd < 0) {
        refuse(b, problem, "cannot be opened");
        return BUNDLE_REFUSED;
    }
    bool good = read_config(b, fd, problem);
    close(fd);
    return good ? BUNDLE_READ : BUNDLE_REFUSED;
}

static bool write_whole(int fd, const char *at, size_t n) {
    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        n -= (size_t)put;
    }
    return true;
}

static bool write_as(int folder, const char *file, const struct stat *like, const char *text, size_t n) {
    unlinkat(folder, file, 0); // left by a launcher that was killed
    int fd = openat(folder, file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool same_owner = like->st_uid == geteuid() && like->st_gid == getegid();
    bool good = write_whole(fd, text, n) && (same_owner || fchown(fd, like->st_uid, like->st_gid) == 0) &&
                fchmod(fd, like->st_mode & 07777) == 0;
    return close(fd) == 0 && good;
}

// No fsync: a bundle does not outlive the boot.
bool bundle_replace(struct bundle *b, const char *text, size_t n, struct bytes *problem) {
    struct bytes fresh = {0};
    bytes_text(&fresh, ".gpuportion.");
    bytes_number(&fresh, getpid());
    int folder = open(bytes_c(&b->folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *file = bytes_c(&b->file), *temporary = bytes_c(&fresh);
    bool good = folder >= 0 && write_as(folder, temporary, &b->was, text, n) &&
                renameat(folder, temporary, folder, file) == 0;
    if (folder >= 0 && !good)
        unlinkat(folder, temporary, 0);
    if (folder >= 0)
        close(folder);
    bytes_free(&fresh);
    return good || refuse(b, problem, "cannot be replaced");
}
