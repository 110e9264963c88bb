// SPDX-License-Identifier: Apache-2.0
// Reaches the driver as C programs do and allocates once. Built with DIRECT it is linked to the library;
// otherwise its argument says how the functions are found: dlsym, or cuGetProcAddress.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef int init_f(unsigned), retain_f(void **, int), set_f(void *), alloc_f(uint64_t *, size_t),
    info_f(size_t *, size_t *), copy_in_f(uint64_t, const void *, size_t),
    copy_out_f(void *, uint64_t, size_t), free_f(uint64_t);

#ifdef DIRECT
init_f cuInit;
retain_f cuDevicePrimaryCtxRetain;
set_f cuCtxSetCurrent;
alloc_f cuMemAlloc_v2;
info_f cuMemGetInfo_v2;
copy_in_f cuMemcpyHtoD_v2;
copy_out_f cuMemcpyDtoH_v2;
free_f cuMemFree_v2;
#define FIND(base, symbol) symbol
#else
static void *library;
static int (*resolve)(const char *, void **, int, uint64_t, int *);

static void *find(const char *base, const char *symbol) {
    void *found = NULL;
    int status;
    if (!resolve)
        return dlsym(library, symbol);
    resolve(base, &found, 12000, 0, &status);
    return found;
}
#define FIND(base, symbol) find(#base, #symbol)
#endif

int main(int n, char **arguments) {
#ifndef DIRECT
    library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
        return fprintf(stderr, "%s\n", dlerror()), 2;
    if (n > 1 && !strcmp(arguments[1], "cuGetProcAddress"))
        resolve = dlsym(library, "cuGetProcAddress_v2");
#else
    (void)n, (void)arguments;
#endif
    init_f *init = FIND(cuInit, cuInit);
    retain_f *retain = FIND(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain);
    set_f *set = FIND(cuCtxSetCurrent, cuCtxSetCurrent);
    alloc_f *alloc = FIND(cuMemAlloc, cuMemAlloc_v2);
    info_f *info = FIND(cuMemGetInfo, cuMemGetInfo_v2);
    copy_in_f *copy_in = FIND(cuMemcpyHtoD, cuMemcpyHtoD_v2);
    copy_out_f *copy_out = FIND(cuMemcpyDtoH, cuMemcpyDtoH_v2);
    free_f *release = FIND(cuMemFree, cuMemFree_v2);
    void *context;
    uint64_t at;
    size_t free_before, free_after, total;
    char text[16] = "there and back", back[16] = "";
    if (init(0) || retain(&context, 0) || set(context) || info(&free_before, &total) || alloc(&at, 1 << 30))
        return 1;
    if (copy_in(at, text, sizeof text) || copy_out(back, at, sizeof back) || info(&free_after, &total))
        return 1;
    printf("%s, %zu bytes\n", back, free_before - free_after);
    return release(at);
}
