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

/* `name` in a folder; NULL where that is too long for a path. */
static const char *path_of(char path[PATH_MAX], const char *folder, const char *name) {
    int n = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return n < 0 || n >= PATH_MAX ? NULL : path;
}

static int unmounted(const char *dir) {
    return umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) ? errno : 0;
}

static int unmount_ledger(const char *folder) {
    char path[PATH_MAX];
    int problem = path_of(path, folder, "ledger") ? unmounted(path) : ENAMETOOLONG;
    return problem == EINVAL || problem == ENOENT || problem == EPERM ? 0 : problem;
}

void gp_unmount_ledgers(const char *folders, int n, int *problems) {
    for (int i = 0; i < n; i++, folders = after(folders))
        problems[i] = unmount_ledger(folders);
}

/* What a folder has as a rule, which then need not be read. A ledger that is busy was mounted on twice. */
static void remove_the_usual(const char *folder) {
    static const char *const files[] = {"policy", "ld.so.preload"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (path_of(path, folder, files[i]))
            unlink(path);
    if (path_of(path, folder, "ledger"))
        while (rmdir(path) && errno == EBUSY && !unmounted(path))
            ;
}

/* What the kernel writes is struct dirent where a long has 64 bits. */
_Static_assert(sizeof(long) == 8, "getdents64 fills another struct than struct dirent");

static int clear(int folder);

static int unlinked(int at, const char *name, int flags) {
    return unlinkat(at, name, flags) && errno != ENOENT ? errno : 0;
}

/* A folder on which something is mounted says EBUSY, full or not, and is not entered. */
static int remove_folder(int at, const char *name) {
    int problem = unlinked(at, name, AT_REMOVEDIR);
    if (problem != ENOTEMPTY && problem != EEXIST)
        return problem;
    int folder = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0)
        return errno;
    problem = clear(folder);
    close(folder);
    return problem ? problem : unlinked(at, name, AT_REMOVEDIR);
}

static int remove_entry(int at, const struct dirent *entry) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
        return 0;
    int problem = entry->d_type == DT_DIR ? EISDIR : unlinked(at, entry->d_name, 0);
    return problem == EISDIR ? remove_folder(at, entry->d_name) : problem;
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

void gp_remove_pages(const char *folders, const char *notes, int n, int *problems) {
    for (int i = 0; i < n; i++, folders = after(folders), notes = after(notes)) {
        if (problems[i])
            continue;
        remove_the_usual(folders);
        problems[i] = remove_folder(AT_FDCWD, folders);
        if (!problems[i] && notes[0])
            problems[i] = unlinked(AT_FDCWD, notes, 0);
    }
}
