// SPDX-License-Identifier: Apache-2.0
/* How a lock is waited for: a moment awake, then asleep in the kernel. Threads that poll or yield would be in
 * the way of the very one that they wait for, where there are many more of them than processors.
 *
 * Who is woken may find that another was faster, as a rule the one who just had it. That is well, for a
 * while: no change of threads is as cheap as none. But after TURN milliseconds the lock is promised to a
 * waiter who finds it taken, and until he has had it nobody else takes it. So who waits is overtaken for no
 * longer than a few turns of each of those who wait beside him.
 *
 * One waiter is woken at a time: while he is on his way, an unlock makes no system call. An unlock looks for
 * waiters without a barrier, so it may not see one who has just come, or who has just been promised the lock,
 * and wakes nobody. Processors keep a store back for less than a microsecond; so for the first millisecond a
 * waiter sleeps but shortly, and after it every unlock sees him. tests/native/lock_model.py goes through all
 * of that.
 */
#include "lock.h"

#include <linux/futex.h>

#include "raw.h"

enum { LOOKS = 100, TURN = 2, SHORT = 1, LONG = 100 }; /* the last three in milliseconds */
enum { ANYBODY = 1, WHO_WAS_PROMISED = 2 };

static struct timespec now(void) {
    struct timespec at = {0};
    gp_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&at, 0, 0, 0, 0);
    return at;
}

static uint32_t milliseconds(void) {
    struct timespec at = now();
    return (uint32_t)(at.tv_sec * 1000 + at.tv_nsec / 1000000);
}

static union gp_lock_word look(const struct gp_lock *lock) {
    return (union gp_lock_word){__atomic_load_n(&lock->word.whole, __ATOMIC_RELAXED)};
}

static int change(struct gp_lock *lock, union gp_lock_word from, union gp_lock_word to) {
    return __atomic_compare_exchange_n(&lock->word.whole, &from.whole, to.whole, 0, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static void sleep_while(struct gp_lock *lock, union gp_lock_word seen, int most, int as) {
    struct timespec end = now();
    end.tv_nsec += most * 1000000;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    gp_syscall(SYS_futex, (long)&lock->word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen.whole, (long)&end,
               0, as);
}

static void wake(struct gp_lock *lock, int whom) {
    gp_syscall(SYS_futex, (long)&lock->word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 1, 0, 0, whom);
}

/* Looks by a change that changes nothing: who comes later sees the lock free, who came before is seen. */
void gp_lock_wake(struct gp_lock *lock) {
    union gp_lock_word seen = {__atomic_fetch_or(&lock->word.whole, 0, __ATOMIC_SEQ_CST)}, waking = seen;
    waking.waking = 1;
    if (seen.promised)
        wake(lock, WHO_WAS_PROMISED);
    else if (!seen.held && !seen.waking && seen.waiters && change(lock, seen, waking))
        wake(lock, ANYBODY);
}

/* A waiter takes it, and is none any more. */
static int take(struct gp_lock *lock, union gp_lock_word seen, int promised) {
    union gp_lock_word taken = seen;
    taken.held = 1;
    taken.waking = 0;
    taken.waiters--;
    if (promised)
        taken.promised = 0;
    if (!change(lock, seen, taken))
        return 0;
    if (promised)
        __atomic_store_n(&lock->handed, milliseconds(), __ATOMIC_RELAXED);
    return 1;
}

static int promise(struct gp_lock *lock, union gp_lock_word seen) {
    union gp_lock_word promised = seen;
    promised.promised = 1;
    promised.waking = 0;
    return change(lock, seen, promised);
}

static void join(struct gp_lock *lock) {
    union gp_lock_word seen, joined;
    do {
        seen = joined = look(lock);
        joined.waiters++;
    } while (!change(lock, seen, joined));
}

static int turn_is_over(const struct gp_lock *lock) {
    return milliseconds() - __atomic_load_n(&lock->handed, __ATOMIC_RELAXED) >= TURN;
}

void gp_lock_wait(struct gp_lock *lock) {
    for (int looks = 0; looks < LOOKS; looks++)
        if (gp_trylock(lock))
            return;
    join(lock);
    uint32_t since = milliseconds();
    for (int mine = 0;;) {
        union gp_lock_word seen = look(lock), calm = seen;
        calm.waking = 0;
        if (!seen.held && (mine || !seen.promised)) {
            if (take(lock, seen, mine))
                return;
        } else if (!seen.promised && turn_is_over(lock)) {
            mine = promise(lock, seen);
            since = milliseconds();
        } else if (seen.waking) {
            change(lock, seen, calm); /* it was for us, or others will be woken once more than need be */
        } else {
            int fresh = milliseconds() - since <= SHORT;
            sleep_while(lock, seen, fresh ? SHORT : LONG, mine ? WHO_WAS_PROMISED : ANYBODY);
        }
    }
}
