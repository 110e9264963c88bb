// SPDX-License-Identifier: Apache-2.0
// Code: modules belong to a context, libraries to the process (they get a module in each context that uses
// them).
#pragma once
#include "driver.h"
#include "image.h"

enum { FUNCTION_ATTRIBUTES = 18, FUNCTION_MAGIC = 0x46554e43 };

struct function {
    uint32_t magic;
    char *name;
    struct module *module;   // of a CUfunction
    struct library *library; // of a CUkernel, or where its module came from
    int attribute[FUNCTION_ATTRIBUTES];
    struct function *next;
};

#pragma GCC visibility push(hidden)
static inline bool function_is(const struct function *function) {
    return function && function->magic == FUNCTION_MAGIC;
}
// A CUkernel is about to run in a context: its library's module gets there with its first kernel.
CUresult kernel_load(const struct function *kernel, struct context *ctx);
#pragma GCC visibility pop
