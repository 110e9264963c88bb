// SPDX-License-Identifier: Apache-2.0
/* mount(2) and umount2(2) as the daemon uses them for ledgers, and the end of their folders. */
#define _GNU_SOURCE
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>

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

int gp_unmount(const char *dir) {
    while (!umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
        ;
    return errno == EINVAL || errno == ENOENT || errno == EPERM ? 0 : errno;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *at) {
    (void)status, (void)kind, (void)at;
    return remove(path) && errno != ENOENT ? errno : 0;
}

int gp_remove_folder(const char *dir) {
    int problem = nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (problem == -1)
        problem = errno;
    return problem == ENOENT ? 0 : problem;
}
