// SPDX-License-Identifier: Apache-2.0
/* A libcuda.so.1 that notes which of its functions are called, in order, and forwards each to the real one
 * (GPUPORTION_TRACE_DRIVER names it). Preloaded into a program that reads the notes from within: what a call
 * of the CUDA runtime or of PyTorch makes of the driver. Only for x86-64; counts nothing, changes nothing.
 *
 * TRACED(number, symbol), a line for each function of the driver, comes from libcap_mem/symbols/cuda.txt.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))
#define NOTES 65536
#define LAST "65535"

HIDDEN uint16_t gt_notes[NOTES];
HIDDEN uint32_t gt_next;

/* r10 and r11 are nobody's at a function's start. */
#define TRACED(number, symbol)                                                                               \
    __asm__(".text\n.p2align 4\n.globl " #symbol "\n.type " #symbol ", @function\n" #symbol ":\n"            \
            "movl $1, %r11d\nlock xaddl %r11d, gt_next(%rip)\nandl $" LAST ", %r11d\n"                       \
            "leaq gt_notes(%rip), %r10\nmovw $" #number ", (%r10,%r11,2)\n"                                  \
            "jmp *gt_slots+8*" #number "(%rip)\n.size " #symbol ", .-" #symbol "\n");
#include "traced.h"
#undef TRACED

#define TRACED(number, symbol) extern void symbol(void);
#include "traced.h"
#undef TRACED

typedef void function(void);

static function *const ours[] = {
#define TRACED(number, symbol) symbol,
#include "traced.h"
#undef TRACED
};

static const char *const names[] = {
#define TRACED(number, symbol) #symbol,
#include "traced.h"
#undef TRACED
};

enum { SYMBOLS = sizeof names / sizeof *names };

HIDDEN void *gt_slots[SYMBOLS];

static void *driver;

static int missing(void) {
    return 801; /* CUDA_ERROR_NOT_SUPPORTED */
}

/* Another constructor may call the driver: this one is the first. */
__attribute__((constructor(101))) static void open_driver(void) {
    const char *path = getenv("GPUPORTION_TRACE_DRIVER");
    driver = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!driver && path)
        fprintf(stderr, "gpu_trace: %s\n", dlerror());
    for (unsigned i = 0; i < SYMBOLS; i++) {
        void *real = driver ? dlsym(driver, names[i]) : NULL;
        gt_slots[i] = real ? real : (void *)missing;
    }
}

/* The function of ours for an answer of the driver's. Of several names for one address, one that begins as
 * what was asked for. */
static void *traced(const char *name, void *answer) {
    void *found = answer;
    for (unsigned i = 0; i < SYMBOLS; i++)
        if (gt_slots[i] == answer) {
            found = (void *)ours[i];
            if (!strncmp(names[i], name, strlen(name)))
                break;
        }
    return found;
}

#define LOOKUPS(X)                                                                                           \
    X(cuGetProcAddress) X(cuGetProcAddress_ptsz) X(cuGetProcAddress_v2) X(cuGetProcAddress_v2_ptsz)

typedef int lookup(const char *, void **, int, uint64_t, int *);
#define X(symbol) EXPORT lookup symbol;
LOOKUPS(X)
#undef X

static int answer(const char *symbol, const char *name, void **out, int version, uint64_t flags,
                  int *status) {
    static const struct {
        const char *name;
        lookup *ours;
    } lookups[] = {
#define X(symbol) {#symbol, symbol},
        LOOKUPS(X)
#undef X
    };
    lookup *real = (lookup *)(driver ? dlsym(driver, symbol) : NULL);
    int rc = real ? real(name, out, version, flags, status) : missing();
    if (rc || !name || !out || !*out)
        return rc;
    for (unsigned i = 0; i < sizeof lookups / sizeof *lookups; i++)
        if (*out == dlsym(driver, lookups[i].name)) {
            *out = (void *)lookups[i].ours;
            return rc;
        }
    *out = traced(name, *out);
    return rc;
}

/* The first two have no fifth argument; what is in its register is passed on and read by nobody. */
#define X(symbol)                                                                                            \
    EXPORT int symbol(const char *name, void **out, int version, uint64_t flags, int *status) {              \
        return answer(#symbol, name, out, version, flags, status);                                           \
    }
LOOKUPS(X)
#undef X

/* How many calls there were, and the name of one of the last NOTES. */
EXPORT uint32_t gpu_trace_count(void);
EXPORT const char *gpu_trace_name(uint32_t call);

uint32_t gpu_trace_count(void) {
    return __atomic_load_n(&gt_next, __ATOMIC_ACQUIRE);
}

const char *gpu_trace_name(uint32_t call) {
    return names[gt_notes[call % NOTES]];
}
