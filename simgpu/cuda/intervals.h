// SPDX-License-Identifier: Apache-2.0
// Ranges of addresses, in order and never overlapping, each with an object. Knows nothing of what they mean.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interval {
    uintptr_t base;
    size_t size;
    void *object;
};

struct intervals {
    struct interval *at;
    size_t n, room;
};

#pragma GCC visibility push(hidden)
struct interval *intervals_find(const struct intervals *set, uintptr_t address); // NULL: within none
bool intervals_overlap(const struct intervals *set, uintptr_t base, size_t size);
bool intervals_add(struct intervals *set, struct interval interval); // false: out of host memory
void intervals_remove(struct intervals *set, struct interval *interval);
#pragma GCC visibility pop
