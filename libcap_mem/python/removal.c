// SPDX-License-Identifier: Apache-2.0
/* How a grant's pages and its note go: in batches, because an unmount waits for the kernel. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host.h"

static const char *after(const char *text) {
    return text + strlen(text) + 1;
}

static int unmount_ledger(const char *folder) {
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s/ledger", folder);
    if (n < 0 || (size_t)n >= sizeof dir)
        return ENAMETOOLONG;
    while (!umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
        ;
    return errno == EINVAL || errno == ENOENT || errno == EPERM ? 0 : errno;
}

void gp_unmount_ledgers(const char *folders, int n, int *problems) {
    for (int i = 0; i < n; i++, folders = after(folders))
        problems[i] = unmount_ledger(folders);
}

/* What the kernel writes is struct dirent where a long has 64 bits. */
_Static_assert(sizeof(long) == 8, "getdents64 fills another struct than struct dirent");

static int remove_folder(int at, const char *name);

static int unlinked(int at, const char *name, int flags) {
    return unlinkat(at, name, flags) && errno != ENOENT ? errno : 0;
}

/* A folder that is not entered unless it must be: one on which something is mounted says EBUSY, full or not.
 */
static int remove_entry(int at, const struct dirent *entry) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
        return 0;
    int problem = entry->d_type == DT_DIR ? EISDIR : unlinked(at, entry->d_name, 0);
    if (problem != EISDIR)
        return problem;
    problem = unlinked(at, entry->d_name, AT_REMOVEDIR);
    return problem == ENOTEMPTY || problem == EEXIST ? remove_folder(at, entry->d_name) : problem;
}

/* All that is in the open folder. What appears there meanwhile makes it a folder that is not empty. */
static int clear(int folder) {
    _Alignas(struct dirent) char entries[2048];
    for (;;) {
        long n = syscall(SYS_getdents64, folder, entries, sizeof entries);
        if (n <= 0)
            return n ? errno : 0;
        for (long at = 0; at < n;) {
            const struct dirent *entry = (const struct dirent *)(entries + at);
            int problem = remove_entry(folder, entry);
            if (problem)
                return problem;
            at += entry->d_reclen;
        }
    }
}

static int remove_folder(int at, const char *name) {
    int folder = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0)
        return errno == ENOENT ? 0 : errno;
    int problem = clear(folder);
    close(folder);
    return problem ? problem : unlinked(at, name, AT_REMOVEDIR);
}

void gp_remove_pages(const char *folders, const char *notes, int n, int *problems) {
    for (int i = 0; i < n; i++, folders = after(folders), notes = after(notes)) {
        if (!problems[i])
            problems[i] = remove_folder(AT_FDCWD, folders);
        if (!problems[i] && notes[0])
            problems[i] = unlinked(AT_FDCWD, notes, 0);
    }
}
