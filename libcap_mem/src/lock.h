// SPDX-License-Identifier: Apache-2.0
/* A lock of this process's threads, all zero while nobody ever waited for it. It lies in memory that a fork
 * wipes, so that a child never finds it taken by a thread that it does not have. Knows nothing of what it
 * guards.
 *
 * Who has it may be without a processor for a long time, and may want it again as soon as he has let go. So
 * who waits does so asleep, and the lock is promised to one of those who wait now and then: lock.c.
 */
#ifndef GP_LOCK_H
#define GP_LOCK_H
#include <stdint.h>

union gp_lock_word {
    uint32_t whole;
    struct {
        uint8_t held;
        uint8_t promised : 1; /* to one of those who wait: nobody else takes it */
        uint8_t waking : 1;   /* one of them has been woken, and has not looked yet */
        uint16_t waiters;
    };
};

_Static_assert(sizeof(union gp_lock_word) == 4, "one futex");

struct gp_lock {
    union gp_lock_word word;
    uint32_t handed; /* milliseconds: when it was last taken by promise */
};

void gp_lock_wait(struct gp_lock *lock);
void gp_lock_wake(struct gp_lock *lock);

/* 0: somebody has it, or it is promised. */
static inline int gp_trylock(struct gp_lock *lock) {
    union gp_lock_word seen = {__atomic_load_n(&lock->word.whole, __ATOMIC_RELAXED)}, taken = seen;
    taken.held = 1;
    return !seen.held && !seen.promised &&
           __atomic_compare_exchange_n(&lock->word.whole, &seen.whole, taken.whole, 0, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static inline void gp_lock(struct gp_lock *lock) {
    uint32_t free = 0;
    if (__builtin_expect(
            !__atomic_compare_exchange_n(&lock->word.whole, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED),
            0))
        gp_lock_wait(lock);
}

/* A plain store, and no barrier before the look at who waits: it is on the way of every allocation. Whom it
 * misses wakes by himself. */
static inline void gp_unlock(struct gp_lock *lock) {
    __atomic_store_n(&lock->word.held, 0, __ATOMIC_RELEASE);
    if (__builtin_expect(__atomic_load_n(&lock->word.waiters, __ATOMIC_RELAXED) != 0, 0))
        gp_lock_wake(lock);
}

#endif
