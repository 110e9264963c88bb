// SPDX-License-Identifier: Apache-2.0
/* mount(2) and umount2(2) as the daemon uses them for ledgers, and the end of their folders. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

int gp_mount_tmpfs(const char *dir, uint64_t bytes, const char *label) {
    char options[512];
    int n = label[0] ? snprintf(options, sizeof options,
                                "size=%" PRIu64 ",nr_inodes=2,mode=0700,context=\"%s\"", bytes, label)
                     : snprintf(options, sizeof options, "size=%" PRIu64 ",nr_inodes=2,mode=0700", bytes);
    if (n < 0 || (size_t)n >= sizeof options)
        return ENAMETOOLONG;
    if (mount("gpuportion", dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, options))
        return errno;
    return 0;
}

static int fill(int fd, uint32_t mode, int64_t owner, const char *data, uint64_t bytes, uint64_t size) {
    if (fchmod(fd, mode) || (owner >= 0 && fchown(fd, (uid_t)owner, (gid_t)-1)))
        return errno;
    int problem = size ? posix_fallocate(fd, 0, (off_t)size) : 0;
    for (uint64_t at = 0; !problem && at < bytes;) {
        ssize_t n = write(fd, data + at, bytes - at);
        if (n < 0)
            problem = errno;
        else
            at += (uint64_t)n;
    }
    return problem;
}

int gp_write_file(const char *path, uint32_t mode, int64_t owner, const char *data, uint64_t bytes,
                  uint64_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    int problem = fill(fd, mode, owner, data, bytes, size);
    if (close(fd) && !problem)
        problem = errno;
    return problem;
}

static int unmount(const char *dir) {
    while (!umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
        ;
    return errno == EINVAL || errno == ENOENT || errno == EPERM ? 0 : errno;
}

void gp_unmount(const char *dirs, int n, int *problems) {
    for (int i = 0; i < n; i++, dirs += strlen(dirs) + 1)
        problems[i] = unmount(dirs);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at) {
    (void)status, (void)kind, (void)at;
    return remove(path) && errno != ENOENT ? errno : 0;
}

static int remove_folder(const char *dir) {
    int problem = nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (problem == -1)
        problem = errno;
    return problem == ENOENT ? 0 : problem;
}

void gp_remove_folders(const char *dirs, int n, int *problems) {
    for (int i = 0; i < n; i++, dirs += strlen(dirs) + 1)
        if (!problems[i])
            problems[i] = remove_folder(dirs);
}
