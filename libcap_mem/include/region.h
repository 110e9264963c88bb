// SPDX-License-Identifier: Apache-2.0
/* The shared pages for C: the layout, the proof that every compiler lays it out alike, and the calls that
 * need only bytes (no lock, no mapping), which the daemon uses on copies that it has read. */
#ifndef GP_REGION_H
#define GP_REGION_H
#include <stddef.h>
#include <stdint.h>

#include "region_layout.h"

_Static_assert(sizeof(gp_policy_gpu) == 64, "gp_policy_gpu is ABI");
_Static_assert(offsetof(gp_policy, cells) == 2048, "gp_policy is ABI");
_Static_assert(sizeof(gp_policy) == 2048, "gp_policy is ABI");
_Static_assert(offsetof(gp_policy, gpu) == 1024, "gp_policy is ABI");
_Static_assert(sizeof(gp_refusal) == 72, "gp_refusal is ABI");
_Static_assert(offsetof(gp_ledger_file, refusal) == 128, "gp_ledger_file is ABI");
_Static_assert(offsetof(gp_ledger_file, cell) == 4096, "gp_ledger_file is ABI");
_Static_assert(offsetof(gp_ledger_file, gpu) == 4096 + 32 * GP_CELLS, "gp_ledger_file is ABI");
_Static_assert(offsetof(gp_ledger_file, gpu) % 128 == 0, "a total must not straddle a line");
_Static_assert(sizeof(gp_ledger_gpu) == 256 + GP_CELLS * (32 + 32 * GP_LANES), "gp_ledger_gpu is ABI");
_Static_assert(sizeof(gp_ledger_gpu) % 128 == 0, "a total must not straddle a line");
_Static_assert(GP_CELLS <= 256 && GP_LANES < GP_VOID, "cell and lane must fit a tag");

static inline uint64_t gp_unseen_word(uint64_t generation, uint64_t bytes) {
    return generation << 48 | ((bytes + 4095) >> 12 & 0xffffffffffffull);
}

static inline uint64_t gp_unseen_bytes(uint64_t word) {
    return (word & 0xffffffffffffull) << 12;
}

#endif
