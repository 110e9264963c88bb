// SPDX-License-Identifier: Apache-2.0
/* How a word is touched that other processes touch too. Each access is one step: an explorer of the sources
 * defines GP_STEP and decides at each who goes next. */
#ifndef GP_SHARED_WORD_H
#define GP_SHARED_WORD_H
#include <stdint.h>

#ifndef GP_STEP
#define GP_STEP(access) ((void)0)
#endif

#define GP_LOAD(word) (GP_STEP("load " #word), __atomic_load_n(&(word), __ATOMIC_ACQUIRE))
#define GP_STORE(word, value) (GP_STEP("store " #word), __atomic_store_n(&(word), (value), __ATOMIC_RELEASE))
#define GP_SWAP(word, value) (GP_STEP("swap " #word), __atomic_exchange_n(&(word), (value), __ATOMIC_ACQ_REL))
#define GP_CAS(word, from, to) (GP_STEP("cas " #word), gp_cas64(&(word), (from), (to)))

static inline int gp_cas64(uint64_t *word, uint64_t from, uint64_t to) {
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static inline int gp_cas32(uint32_t *word, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

struct gp_pair {
    uint64_t low, high;
};

/* Two words at once, 16-byte aligned. Inline: the compiler's own would call libatomic, which an image may
 * lack. */
static inline int gp_cas128(void *at, struct gp_pair from, struct gp_pair to) {
    struct gp_pair *pair = at;
#if defined(__x86_64__)
    char done;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*pair), "+a"(from.low), "+d"(from.high)
                     : "b"(to.low), "c"(to.high)
                     : "memory");
    return done;
#elif defined(__aarch64__)
    /* The pair read by LDAXP is one value only if the STLXP succeeds; a torn one that differs is a failure
     * like any other, and the caller looks again. */
    uint64_t low, high;
    uint32_t failed;
    __asm__ volatile(
        "1: ldaxp %[low], %[high], %[pair]\n"
        "   cmp   %[low], %[from_low]\n"
        "   ccmp  %[high], %[from_high], #0, eq\n"
        "   b.ne  2f\n"
        "   stlxp %w[failed], %[to_low], %[to_high], %[pair]\n"
        "   cbnz  %w[failed], 1b\n"
        "   b     3f\n"
        "2: clrex\n"
        "   mov   %w[failed], #1\n"
        "3:\n"
        : [low] "=&r"(low), [high] "=&r"(high), [failed] "=&r"(failed), [pair] "+Q"(*pair)
        : [from_low] "r"(from.low), [from_high] "r"(from.high), [to_low] "r"(to.low), [to_high] "r"(to.high)
        : "cc", "memory");
    return !failed;
#else
#error "gpuportion knows x86-64 and aarch64"
#endif
}

#endif
