// SPDX-License-Identifier: Apache-2.0
/* System calls without libc: nothing to look up at load, errno left alone, and the same code under glibc 2.17
 * and musl. Each returns what the kernel does, a negative errno included. */
#ifndef GP_RAW_H
#define GP_RAW_H
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

static inline long gp_syscall(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "system calls are written for x86-64 and aarch64"
#endif
}

static inline int gp_open(const char *path, int flags) {
    return (int)gp_syscall(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}
static inline void gp_close(int fd) {
    gp_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}
static inline long gp_read(int fd, void *to, size_t bytes) {
    return gp_syscall(SYS_read, fd, (long)to, (long)bytes, 0, 0, 0);
}
static inline long gp_write(int fd, const void *from, size_t bytes) {
    return gp_syscall(SYS_write, fd, (long)from, (long)bytes, 0, 0, 0);
}
static inline int gp_getpid(void) {
    return (int)gp_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
}
static inline void gp_yield(void) {
    gp_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* Seconds of a clock that only goes forward. */
static inline int64_t gp_seconds(void) {
    struct timespec now = {0};
    gp_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    return now.tv_sec;
}

/* Zeroed private memory, or NULL. */
#ifdef __SANITIZE_THREAD__ /* learns from libc's calls alone that an address is used anew */
static inline void *gp_map(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}
static inline void gp_unmap(void *at, size_t bytes) {
    munmap(at, bytes);
}
#else
static inline void *gp_map(size_t bytes) {
    long at =
        gp_syscall(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at < 0 && at > -4096 ? NULL : (void *)at;
}
static inline void gp_unmap(void *at, size_t bytes) {
    gp_syscall(SYS_munmap, (long)at, (long)bytes, 0, 0, 0, 0);
}
#endif

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

/* Memory that a forked child finds zeroed: what this process holds in the driver is not its child's. Made
 * once, by whichever thread comes first; NULL when there is none to be had. */
static __attribute__((noinline, unused)) void *gp_make_own_memory(void **where, size_t bytes) {
    void *at = NULL, *made = gp_map(bytes);
    if (!made)
        return NULL;
    gp_syscall(SYS_madvise, (long)made, (long)bytes, MADV_WIPEONFORK, 0, 0, 0);
    if (__atomic_compare_exchange_n(where, &at, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return made;
    gp_unmap(made, bytes);
    return at;
}

static inline void *gp_own_memory(void **where, size_t bytes) {
    void *at = __atomic_load_n(where, __ATOMIC_ACQUIRE);
    return __builtin_expect(at != NULL, 1) ? at : gp_make_own_memory(where, bytes);
}

#endif
