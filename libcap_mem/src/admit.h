// SPDX-License-Identifier: Apache-2.0
#ifndef GP_ADMIT_H
#define GP_ADMIT_H
#include "abi.h"
#include "session.h"
#include "sizes.h"

/* The same without a last attempt and without a word: 1 when granted. */
static inline int gp_try(int gpu, uint64_t bytes) {
    struct gp_ledger *ledger = gp_session();
    return ledger && gpu >= 0 && bytes < GP_ENDLESS && gp_reserve(ledger, (unsigned)gpu, bytes) == GP_GRANTED;
}

/* Where there was none: pools give back what they keep, and others too. */
CUresult gp_last_attempt(int gpu, uint64_t bytes, const char *api);

/* Asks for room, and makes some where there is none. CUDA_SUCCESS, or CUDA_ERROR_OUT_OF_MEMORY after the
 * refusal has been noted and said. `api` is the called function's name. */
static inline CUresult gp_admit(int gpu, uint64_t bytes, const char *api) {
    return __builtin_expect(gp_try(gpu, bytes), 1) ? CUDA_SUCCESS : gp_last_attempt(gpu, bytes, api);
}

/* Notes and says a refusal; returns CUDA_ERROR_OUT_OF_MEMORY. */
CUresult gp_refuse(int gpu, uint64_t bytes, const char *api);

/* Counts what exists already, limit or not. */
void gp_count(int gpu, uint64_t bytes);

static inline void gp_give_back(int gpu, uint64_t bytes) {
    struct gp_ledger *ledger = gp_session();
    if (ledger && gpu >= 0 && bytes)
        gp_release(ledger, (unsigned)gpu, bytes);
}

#endif
