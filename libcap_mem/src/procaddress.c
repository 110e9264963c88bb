// SPDX-License-Identifier: Apache-2.0
/* cuGetProcAddress, by which every CUDA runtime since 11.3 finds the driver's functions. The driver answers
 * first, status and all; where what it answers is a function that we have a body for, ours takes its place.
 * Which function that is, its address says: the driver's export of the same name. A driver that answers with
 * an address of its own making is asked for the same name at the very version that our row begins with: the
 * same answer is the same interface. Any other answer is passed on: never another interface than the one that
 * was asked for. */
#include <string.h>

#include "hooks.h"
#include "slots.h"
#include "symbols_cuda.h"

enum flag { PLAIN, PTSZ };

static const struct row {
    const char *name;
    int since;
    enum flag flag;
    unsigned symbol;
    void *ours;
} rows[] = {
#define HOOK(symbol, name, since, flag, params) {#name, since, flag, GP_SYM_##symbol, (void *)symbol},
#define REAL(symbol, params)
#include "../hooks.def"
#undef HOOK
#undef REAL
};

enum { ROWS = sizeof rows / sizeof *rows };

/* The driver's cuGetProcAddress, by whichever of its two interfaces it has. */
static void *ask(const char *name, int version, uint64_t flags) {
    void *found = NULL;
    int status;
    CUresult rc = real_cuGetProcAddress_v2(name, &found, version, flags, &status);
    if (rc == CUDA_ERROR_NOT_SUPPORTED)
        rc = real_cuGetProcAddress(name, &found, version, flags);
    return rc ? NULL : found;
}

static int same_interface(const struct row *row, void *answer, int version, uint64_t flags) {
    int per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
    return row->since <= version && (row->flag == PTSZ) <= per_thread && gp_real(row->symbol) &&
           ask(row->name, row->since, flags) == answer;
}

/* The best of the rows that it may be: of those that fit, the per-thread one and the newest. */
static void *by_row(const char *name, void *answer, int version, uint64_t flags) {
    const struct row *best = NULL;
    for (const struct row *row = rows; row < rows + ROWS; row++)
        if (!strcmp(row->name, name) && same_interface(row, answer, version, flags) &&
            (!best || row->flag > best->flag || (row->flag == best->flag && row->since > best->since)))
            best = row;
    return best ? best->ours : answer;
}

static void *instead_of(const char *name, void *answer, int version, uint64_t flags) {
    int named = 0;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        if (strcmp(row->name, name))
            continue;
        named = 1;
        if (gp_real(row->symbol) == answer)
            return row->ours;
    }
    return named ? by_row(name, answer, version, flags) : answer;
}

static CUresult answer(CUresult rc, const char *name, void **function, int version, uint64_t flags) {
    if (!rc && name && function && *function)
        *function = instead_of(name, *function, version, flags);
    return rc;
}

GP_EXPORT CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return answer(real_cuGetProcAddress(name, function, version, flags), name, function, version, flags);
}
GP_EXPORT CUresult cuGetProcAddress_ptsz(const char *name, void **function, int version, uint64_t flags) {
    return answer(real_cuGetProcAddress_ptsz(name, function, version, flags), name, function, version, flags);
}
GP_EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                                       int *status) {
    return answer(real_cuGetProcAddress_v2(name, function, version, flags, status), name, function, version,
                  flags);
}
GP_EXPORT CUresult cuGetProcAddress_v2_ptsz(const char *name, void **function, int version, uint64_t flags,
                                            int *status) {
    return answer(real_cuGetProcAddress_v2_ptsz(name, function, version, flags, status), name, function,
                  version, flags);
}
