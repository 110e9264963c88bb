// SPDX-License-Identifier: Apache-2.0
// cuda_session.py's commands for images without Python: `alloc BYTES`, `pid`, `end`. Built with DIRECT it is
// linked with libcuda.so.1; otherwise it opens what its argument names. It needs libc alone, of any age and
// make.
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int init_f(unsigned), retain_f(void **, int), set_f(void *), alloc_f(uint64_t *, size_t);

#ifdef DIRECT
init_f cuInit;
retain_f cuDevicePrimaryCtxRetain;
set_f cuCtxSetCurrent;
alloc_f cuMemAlloc_v2;
#define FIND(symbol, type) symbol
#else
static void *library;
#define FIND(symbol, type) ((type *)dlsym(library, #symbol))
#endif

static const char *result(int status) {
    static char other[16];
    if (status == 0 || status == 2 || status == 100)
        return status == 0   ? "CUDA_SUCCESS"
               : status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
                             : "CUDA_ERROR_NO_DEVICE";
    snprintf(other, sizeof other, "%d", status);
    return other;
}

static int begin(void) {
    void *context = NULL;
    int status = FIND(cuInit, init_f)(0);
    if (status == 0)
        status = FIND(cuDevicePrimaryCtxRetain, retain_f)(&context, 0);
    return status != 0 ? status : FIND(cuCtxSetCurrent, set_f)(context);
}

int main(int n, char **arguments) {
    char line[64];
#ifndef DIRECT
    library = dlopen(n > 1 ? arguments[1] : "libcuda.so.1", RTLD_NOW);
    if (library == NULL)
        return fprintf(stderr, "%s\n", dlerror()), 2;
#else
    (void)n, (void)arguments;
#endif
    printf("{\"opened\": \"%s\", \"pid\": %d}\n", result(begin()), (int)getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "end\n") != 0) {
        uint64_t at;
        if (strncmp(line, "alloc ", 6) == 0)
            printf("{\"result\": \"%s\"}\n",
                   result(FIND(cuMemAlloc_v2, alloc_f)(&at, strtoull(line + 6, NULL, 10))));
        else
            printf("{\"pid\": %d}\n", (int)getpid());
        fflush(stdout);
    }
    return 0;
}
