// SPDX-License-Identifier: Apache-2.0
/* How a grant's pages and its note come to be. All paths are root's alone. They are walked anew for each
 * file: that costs less than a descriptor of the folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "region.h"

#include "host.h"

typedef struct {
    const char *label;
    uint32_t gpus;
    int64_t owner;
    struct {
        const char *bytes;
        uint64_t size;
    } preload, policy;
    int own_file_system;
    size_t length;       /* of the folder's path in `path` */
    char path[PATH_MAX]; /* whatever is asked for by `below` */
} making;

/* The path of this name in the folder; "" for its own. Good until the next call. */
static const char *below(making *this, const char *name) {
    strcpy(this->path + this->length, name);
    return this->path;
}

#define LONGEST_NAME 32 /* of those, with its 0 */

static mode_t folder_mode(const making *this) {
    return this->owner < 0 ? 0700 : 0711;
}

static int make_folder(making *this) {
    const char *folder = below(this, "");
    if (mkdir(folder, folder_mode(this)))
        return errno == EEXIST ? 0 : errno;
    return chmod(folder, folder_mode(this)) ? errno : 0;
}

static int make_ledger_folder(making *this) {
    return mkdir(below(this, "/ledger"), folder_mode(this)) && errno != EEXIST ? errno : 0;
}

static int mount_tmpfs(const char *dir, uint64_t bytes, mode_t mode, const char *label, const char *more) {
    char options[512];
    int n = snprintf(options, sizeof options, "size=%" PRIu64 ",nr_inodes=2,mode=%o%s%s%s%s", bytes,
                     (unsigned)mode, more, label[0] ? ",context=\"" : "", label, label[0] ? "\"" : "");
    if (n < 0 || (size_t)n >= sizeof options)
        return ENAMETOOLONG;
    return mount("gpuportion", dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, options) ? errno
                                                                                                     : 0;
}

/* A file system of exactly the ledger's size, for one file. With `huge` a newer kernel (6.14) takes its
 * memory in a few pieces instead of 22 pages, which makes a third of the work; an older one takes no notice,
 * and one that was built without says EINVAL. */
static int mount_ledger(making *this) {
    static _Atomic int without;
    const char *dir = below(this, "/ledger");
    uint64_t bytes = gp_ledger_size(this->gpus);
    mode_t mode = folder_mode(this);
    int problem = without ? EINVAL : mount_tmpfs(dir, bytes, mode, this->label, ",huge=within_size");
    if (problem == EINVAL) {
        problem = mount_tmpfs(dir, bytes, mode, this->label, "");
        without |= !problem;
    }
    this->own_file_system = !problem;
    if (problem == EPERM)
        return chmod(dir, mode) ? errno : 0;
    return problem;
}

static int put(int fd, const char *data, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = write(fd, data + done, bytes - done);
        if (n < 0)
            return errno;
        done += (uint64_t)n;
    }
    return 0;
}

static int closed(int fd, int problem) {
    return close(fd) && !problem ? errno : problem;
}

/* A new file, open; -1 with errno. */
static int new_file(const char *path, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 0700);
    if (fd >= 0 && fchmod(fd, mode)) {
        errno = closed(fd, errno);
        return -1;
    }
    return fd;
}

static int write_ledger(making *this) {
    const size_t bytes = offsetof(gp_ledger_file, refusal); /* what follows is zeros, as a new file is */
    gp_ledger_file header;
    memset(&header, 0, bytes);
    if (gp_ledger_format(&header, this->gpus))
        return EINVAL;
    int fd = new_file(below(this, "/ledger/ledger"), this->owner < 0 ? 0666 : 0600);
    if (fd < 0)
        return errno;
    int problem = this->owner >= 0 && fchown(fd, (uid_t)this->owner, (gid_t)-1) ? errno : 0;
    if (!problem)
        problem = posix_fallocate(fd, 0, (off_t)gp_ledger_size(this->gpus));
    if (!problem)
        problem = put(fd, (const char *)&header, bytes);
    return closed(fd, problem);
}

static int write_file(const char *path, const char *data, uint64_t bytes) {
    int fd = new_file(path, 0644);
    return fd < 0 ? errno : closed(fd, put(fd, data, bytes));
}

static int write_preload(making *this) {
    if (!this->preload.size)
        return 0;
    return write_file(below(this, "/ld.so.preload"), this->preload.bytes, this->preload.size);
}

static int write_policy(making *this) {
    return write_file(below(this, "/policy"), this->policy.bytes, this->policy.size);
}

static int (*const steps[])(making *) = {
    [GP_FOLDER_MADE] = make_folder,       [GP_LEDGER_FOLDER_MADE] = make_ledger_folder,
    [GP_LEDGER_MOUNTED] = mount_ledger,   [GP_LEDGER_WRITTEN] = write_ledger,
    [GP_PRELOAD_WRITTEN] = write_preload, [GP_POLICY_WRITTEN] = write_policy,
};

gp_made gp_make_pages(const char *folder, uint32_t gpus, int64_t owner, const char *label,
                      const char *preload, uint64_t preload_bytes, const char *policy, uint64_t policy_bytes,
                      int stop) {
    making this = {.label = label,
                   .gpus = gpus,
                   .owner = owner,
                   .preload = {preload, preload_bytes},
                   .policy = {policy, policy_bytes},
                   .length = strlen(folder)};
    gp_made made = {0, GP_FOLDER_MADE, 0};
    if (this.length + LONGEST_NAME > sizeof this.path)
        made.problem = ENAMETOOLONG;
    else
        memcpy(this.path, folder, this.length);
    while (!made.problem) {
        made.problem = steps[made.step](&this);
        if (made.problem || made.step == stop || made.step == GP_POLICY_WRITTEN)
            break;
        made.step++;
    }
    made.own_file_system = this.own_file_system;
    return made;
}

/* Of a file that was opened for it; removed where it can't be whole. */
static int write_whole(int fd, const char *path, const char *data, uint64_t bytes) {
    int problem = closed(fd, put(fd, data, bytes));
    if (problem)
        unlink(path);
    return problem;
}

static int replace(const char *path, const char *data, uint64_t bytes) {
    char beside[PATH_MAX];
    int n = snprintf(beside, sizeof beside, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof beside)
        return ENAMETOOLONG;
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    int problem = write_whole(fd, beside, data, bytes);
    return problem || !rename(beside, path) ? problem : errno;
}

int gp_write_note(const char *path, const char *data, uint64_t bytes) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        return write_whole(fd, path, data, bytes);
    return errno == EEXIST ? replace(path, data, bytes) : errno;
}
