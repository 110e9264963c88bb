// SPDX-License-Identifier: Apache-2.0
/* The kernel's part: a descriptor, byte locks, a pid. */
#define _GNU_SOURCE
#include "os.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

/* Out of the way of programs that close 3..255, and of shells that use single digits. */
static int move_high(int fd) {
    int high = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
    if (high < 0)
        return fd; /* a low RLIMIT_NOFILE */
    close(fd);
    return high;
}

static int open_as(const char *path, const unsigned long id[2]) {
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0 && !gp_os_is(fd, id)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void name_descriptor(char name[32], int fd) {
    static const char prefix[] = "/proc/self/fd/";
    char *end = name;
    for (const char *p = prefix; *p; p++)
        *end++ = *p;
    for (int unit = 1000000000, started = 0; unit; unit /= 10) {
        started |= fd / unit || unit == 1;
        if (started)
            *end++ = (char)('0' + fd / unit % 10);
    }
    *end = 0;
}

int gp_os_open(const char *path, int spare, const unsigned long id[2]) {
    char name[32];
    int fd = open_as(path, id);
    if (fd < 0 && spare >= 0) {
        name_descriptor(name, spare);
        fd = open_as(name, id);
    }
    return fd < 0 ? -1 : move_high(fd);
}

int gp_os_lowest(int fd) {
    return (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
}

int gp_os_settle(int fd, int place, const unsigned long id[2]) {
    if (fd < 0 || place < 0 || !gp_os_is(place, id) || syscall(SYS_dup3, fd, place, O_CLOEXEC) < 0)
        return fd;
    close(fd);
    return place;
}

void gp_os_close(int fd) {
    close(fd);
}

int gp_os_identify(int fd, unsigned long id[2]) {
    struct stat status; /* the kernel's own layout on 64-bit machines, with glibc and musl */
    if (syscall(SYS_fstat, fd, &status))
        return -1;
    id[0] = (unsigned long)status.st_dev, id[1] = (unsigned long)status.st_ino;
    return 0;
}

int gp_os_is(int fd, const unsigned long id[2]) {
    unsigned long now[2];
    return !gp_os_identify(fd, now) && now[0] == id[0] && now[1] == id[1];
}

static int lock_call(int fd, int command, unsigned byte, short *type) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int failed = (int)syscall(SYS_fcntl, fd, command, &lock);
    *type = lock.l_type;
    return failed;
}

int gp_os_lock(int fd, unsigned byte) {
    short type;
    return lock_call(fd, F_OFD_SETLK, byte, &type) == 0;
}

int gp_os_unlocked(int fd, unsigned byte) {
    short type;
    return lock_call(fd, F_OFD_GETLK, byte, &type) == 0 && type == F_UNLCK;
}

long gp_os_pid(void) {
    return syscall(SYS_getpid);
}

void gp_os_pause(int round) {
    static const struct timespec short_sleep = {0, 50000};
    if (round >= 256)
        syscall(SYS_nanosleep, &short_sleep, 0);
    else if (round % 64 == 63)
        syscall(SYS_sched_yield);
    else
        for (int turn = round % 64; turn > 0; turn -= 4)
            __asm__ volatile("" ::: "memory");
}
