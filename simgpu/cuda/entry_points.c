// SPDX-License-Identifier: Apache-2.0
// cuGetProcAddress: the function of a name, a version and a kind of stream, by the table; and the answer of
// the functions that the simulated driver does not have.
#include "driver.h"
#include "entries.h"
#include <string.h>

enum { PER_THREAD = 2, FLAGS_ALL = 3 };
enum answer { FOUND = 0, UNKNOWN = 1, TOO_OLD = 2 };

// Where rows of a base begin in the table, by halving.
static unsigned first_row(const char *base) {
    unsigned low = 0, high = entry_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (strcmp(entries[middle].base, base) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum answer look_up(const char *base, int version, bool per_thread, void **out) {
    bool known[2] = {false, false};
    void *found[2] = {NULL, NULL};
    for (unsigned i = first_row(base); i < entry_count && !strcmp(entries[i].base, base); i++) {
        known[entries[i].mode] = true;
        if (entries[i].from <= version)
            found[entries[i].mode] = entries[i].symbol;
    }
    int mode = per_thread && known[MODE_THREAD] ? MODE_THREAD : MODE_LEGACY;
    *out = found[mode];
    return *out ? FOUND : known[mode] ? TOO_OLD : UNKNOWN;
}

API(cuGetProcAddress_v2, const char *name, void **out, int version, uint64_t flags, int *status) {
    ENTER_ANYTIME();
    NEED(name && out && flags <= FLAGS_ALL);
    enum answer answer = look_up(name, version, flags & PER_THREAD, out);
    if (status)
        *status = (int)answer;
    return answer == FOUND || status ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

API(cuGetProcAddress, const char *name, void **out, int version, uint64_t flags) {
    ENTER_ANYTIME();
    NEED(name && out && flags <= FLAGS_ALL);
    return look_up(name, version, flags & PER_THREAD, out) == FOUND ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult not_supported(const char *name, const void *caller) {
    if (!GATE_IS_OPEN())
        trace_call(name, caller);
    return CUDA_ERROR_NOT_SUPPORTED;
}
