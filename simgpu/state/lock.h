// SPDX-License-Identifier: Apache-2.0
// A lock for the threads of this process. Not pthread's: in images with an older libc that would be another
// library.
#pragma once
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
    _Atomic int state; // 0 free, 1 held, 2 held and waited for
} lock_t;

static inline void lock_wait(lock_t *lock) {
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire))
        syscall(SYS_futex, &lock->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

static inline void lock_acquire(lock_t *lock) {
    int free = 0;
    if (!atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire,
                                                 memory_order_relaxed))
        lock_wait(lock);
}

static inline void lock_release(lock_t *lock) {
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2)
        syscall(SYS_futex, &lock->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
