// SPDX-License-Identifier: Apache-2.0
// cuda_session.py's commands for images without Python: `alloc BYTES`, `pid`, `end`. Built with DIRECT it is
// linked with libcuda.so.1; otherwise it opens what its argument names. It needs libc alone, of any age and
// make. With STATIC_RUNTIME it first asks NVIDIA's runtime, which is linked in, for its devices: that finds
// the driver as all programs of the runtime do (a simulated one it declines, later).
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

#ifdef STATIC_RUNTIME
int cudaGetDeviceCount(int *count);

// Nobody but our library opens the real driver where it lies.
static int runtime_came_by_us(void) {
    char line[512];
    int count, found = 0;
    cudaGetDeviceCount(&count);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, "/.gpuportion/driver/libcuda.so.1") != NULL;
    fclose(maps);
    return found;
}
#endif

int main(int n, char **arguments) {
    char line[64];
#ifdef STATIC_RUNTIME
    if (!runtime_came_by_us())
        return fprintf(stderr, "the runtime did not find the driver through the library before it\n"), 2;
#endif
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
