// SPDX-License-Identifier: Apache-2.0
// The system calls that the programs make, under their libc names. Only what is used; one thread.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h> // renameat
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "syscall6.h"

static int error;

int *__errno_location(void) {
    return &error;
}

static long called(long result) {
    if (result >= 0 || result < -4095)
        return result;
    error = (int)-result;
    return -1;
}

#define CALL(name, a, b, c, d, e, f)                                                                         \
    called(bare_syscall6(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

long syscall(long number, ...) {
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long); // as many as any has; what was not given is not looked at
    va_end(more);
    return called(bare_syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

int openat(int folder, const char *path, int flags, ...) {
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return (int)CALL(openat, folder, path, flags, mode, 0, 0);
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return (int)CALL(openat, AT_FDCWD, path, flags, mode, 0, 0);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    return (int)CALL(clock_gettime, clock, out, 0, 0, 0, 0);
}

time_t time(time_t *out) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}

int poll(struct pollfd *fds, nfds_t n, int ms) {
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    return (int)CALL(ppoll, fds, n, ms < 0 ? NULL : &wait, NULL, 0, 0);
}

ssize_t recv(int fd, void *at, size_t n, int flags) {
    return CALL(recvfrom, fd, at, n, flags, NULL, NULL);
}

// On these architectures libc's struct stat is the kernel's.
int fstat(int fd, struct stat *out) {
    return (int)CALL(fstat, fd, out, 0, 0, 0, 0);
}
int stat(const char *path, struct stat *out) {
    return (int)CALL(newfstatat, AT_FDCWD, path, out, 0, 0, 0);
}
int lstat(const char *path, struct stat *out) {
    return (int)CALL(newfstatat, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW, 0, 0);
}

ssize_t read(int fd, void *at, size_t n) {
    return CALL(read, fd, at, n, 0, 0, 0);
}
ssize_t write(int fd, const void *at, size_t n) {
    return CALL(write, fd, at, n, 0, 0, 0);
}
int close(int fd) {
    return (int)CALL(close, fd, 0, 0, 0, 0, 0);
}
int access(const char *path, int mode) {
    return (int)CALL(faccessat, AT_FDCWD, path, mode, 0, 0, 0);
}
int chdir(const char *path) {
    return (int)CALL(chdir, path, 0, 0, 0, 0, 0);
}
int fchmod(int fd, mode_t mode) {
    return (int)CALL(fchmod, fd, mode, 0, 0, 0, 0);
}
int fchown(int fd, uid_t user, gid_t group) {
    return (int)CALL(fchown, fd, user, group, 0, 0, 0);
}
int unlinkat(int folder, const char *path, int flags) {
    return (int)CALL(unlinkat, folder, path, flags, 0, 0, 0);
}
int renameat(int a, const char *from, int b, const char *to) {
    return (int)CALL(renameat, a, from, b, to, 0, 0);
}
ssize_t readlink(const char *path, char *at, size_t n) {
    return CALL(readlinkat, AT_FDCWD, path, at, n, 0, 0);
}
int execve(const char *path, char *const *argv, char *const *envp) {
    return (int)CALL(execve, path, argv, envp, 0, 0, 0);
}
pid_t getpid(void) {
    return (pid_t)CALL(getpid, 0, 0, 0, 0, 0, 0);
}
uid_t geteuid(void) {
    return (uid_t)CALL(geteuid, 0, 0, 0, 0, 0, 0);
}
gid_t getegid(void) {
    return (gid_t)CALL(getegid, 0, 0, 0, 0, 0, 0);
}
int socket(int domain, int type, int protocol) {
    return (int)CALL(socket, domain, type, protocol, 0, 0, 0);
}
int connect(int fd, const struct sockaddr *to, socklen_t n) {
    return (int)CALL(connect, fd, to, n, 0, 0, 0);
}
int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict n) {
    return (int)CALL(getsockopt, fd, level, name, value, n, 0);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return CALL(sendmsg, fd, message, flags, 0, 0, 0);
}
