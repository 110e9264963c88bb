// SPDX-License-Identifier: Apache-2.0
// Sets of ranges as sorted arrays: few enough for a move of the tail to be cheaper than a tree.
#include "intervals.h"
#include <stdlib.h>
#include <string.h>

// The first interval that ends beyond `address`.
static size_t first_beyond(const struct intervals *set, uintptr_t address) {
    size_t low = 0, high = set->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (set->at[middle].base + set->at[middle].size <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct interval *intervals_find(const struct intervals *set, uintptr_t address) {
    size_t i = first_beyond(set, address);
    return i < set->n && set->at[i].base <= address ? &set->at[i] : NULL;
}

bool intervals_overlap(const struct intervals *set, uintptr_t base, size_t size) {
    size_t i = first_beyond(set, base);
    return i < set->n && set->at[i].base < base + size;
}

bool intervals_add(struct intervals *set, struct interval interval) {
    if (set->n == set->room) {
        size_t room = set->room ? set->room * 2 : 64;
        struct interval *more = realloc(set->at, room * sizeof *more);
        if (!more)
            return false;
        set->at = more;
        set->room = room;
    }
    size_t i = first_beyond(set, interval.base);
    memmove(&set->at[i + 1], &set->at[i], (set->n - i) * sizeof interval);
    set->at[i] = interval;
    set->n++;
    return true;
}

void intervals_remove(struct intervals *set, struct interval *interval) {
    size_t i = (size_t)(interval - set->at);
    set->n--;
    memmove(&set->at[i], &set->at[i + 1], (set->n - i) * sizeof *interval);
}
