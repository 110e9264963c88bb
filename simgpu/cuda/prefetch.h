// SPDX-License-Identifier: Apache-2.0
// Where managed memory is: what the calls that move it ask of managed.c.
#pragma once
#include "arena.h"
#include "driver.h"

enum { ON_HOST = -1, NOWHERE = -2 }; // instead of a device

#pragma GCC visibility push(hidden)
CUresult managed_find(struct block **out, uintptr_t address, size_t size); // with the lock held
CUresult managed_prefetch(uintptr_t address, size_t size, int device);
CUresult managed_discard(uintptr_t address, size_t size);
#pragma GCC visibility pop
