// SPDX-License-Identifier: Apache-2.0
// The table that the generator makes of driver_api.tsv.
#pragma once

enum stream_mode { MODE_LEGACY, MODE_THREAD };

struct entry {
    const char *base;
    int mode;
    int from; // first CUDA version that gets this symbol
    void *symbol;
};

#pragma GCC visibility push(hidden)
extern const struct entry entries[]; // by base, mode, version
extern const unsigned entry_count;
#pragma GCC visibility pop
