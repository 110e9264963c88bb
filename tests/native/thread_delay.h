// SPDX-License-Identifier: Apache-2.0
/* How long something delayed this thread, apart from what the machine's other work did. Knows nothing of what
 * the thread was doing.
 *
 * Of the time between two moments, three parts can be told: what the thread ran, what it was ready to run and
 * had no processor (/proc/thread-self/schedstat), and the rest: it was asleep, because it asked to be, or the
 * machine's host ran something else. Who never went to sleep of his own accord was not kept waiting, whatever
 * the clock says.
 */
#ifndef THREAD_DELAY_H
#define THREAD_DELAY_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct moment {
    uint64_t wall, ran, queued; /* ns */
    long sleeps;                /* how often it went to sleep by itself; a yield is none */
};

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

static inline uint64_t queued_ns(void) {
    static _Thread_local int fd; /* of the thread that opened it, wherever it is read */
    char text[96] = "";
    if (!fd)
        fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (pread(fd, text, sizeof text - 1, 0) <= 0)
        return 0;
    char *second;
    strtoull(text, &second, 10);
    return strtoull(second, NULL, 10);
}

/* `ending`: the clock on the wall is read first, else last, so that the reading itself is not in between. */
static inline struct moment moment_now(int ending) {
    struct moment at = {.wall = ending ? clock_ns(CLOCK_MONOTONIC) : 0};
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    at.sleeps = usage.ru_nvcsw;
    at.queued = queued_ns();
    at.ran = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (!ending)
        at.wall = clock_ns(CLOCK_MONOTONIC);
    return at;
}

/* Nanoseconds that it computed, and where it slept, those too. */
static inline uint64_t delay_between(const struct moment *from, const struct moment *to) {
    uint64_t ran = to->ran - from->ran, queued = to->queued - from->queued, wall = to->wall - from->wall;
    uint64_t present = wall > queued ? wall - queued : 0;
    return to->sleeps == from->sleeps || present < ran ? ran : present;
}

#endif
