// SPDX-License-Identifier: Apache-2.0
// The compiled code of a program: nvcc's start-up code registers each fat binary, and each kernel and
// variable in it by the address of its stand-in on the host. A binary is given to the driver when something
// of it is first used.
#include "code.h"
#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 1 << 16 };

struct binary {
    const void *image;
    CUlibrary library;
};

struct symbol {
    const void *host;
    struct binary *binary;
    const char *name;
    CUkernel kernel;
    struct symbol *next;
};

static struct symbol *buckets[BUCKETS];
static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; // guards the buckets and what the symbols have loaded

// What nvcc's start-up code declares for itself; NVIDIA's headers have these for C++ alone.
void **__cudaRegisterFatBinary(void *wrapper);
void __cudaRegisterFatBinaryEnd(void **binary);
void __cudaUnregisterFatBinary(void **binary);
char __cudaInitModule(void **binary);
void __cudaRegisterFunction(void **binary, const char *host, char *device, const char *name, int threads,
                            void *thread, void *block, void *block_size, void *grid_size, int *warp_size);
void __cudaRegisterVar(void **binary, char *host, char *device, const char *name, int external, size_t size,
                       int constant, int global);

EXPORT void **__cudaRegisterFatBinary(void *wrapper) {
    // As NVIDIA's fatbinary_section.h has it.
    const struct {
        int magic, version;
        const void *data;
    } *wrapped = wrapper;
    struct binary *binary = calloc(1, sizeof *binary);
    if (binary)
        binary->image = wrapped->data;
    return (void **)binary;
}

EXPORT void __cudaRegisterFatBinaryEnd(void **binary) {}

// At the end of the process, when the driver may have gone before.
EXPORT void __cudaUnregisterFatBinary(void **binary) {}

EXPORT char __cudaInitModule(void **binary) {
    return 1;
}

static struct symbol **bucket_of(const void *host) {
    return &buckets[((uintptr_t)host >> 4) * 2654435761u >> 16 & (BUCKETS - 1)];
}

static void add(void **binary, const void *host, const char *name) {
    struct symbol *symbol = calloc(1, sizeof *symbol);
    if (!symbol)
        return;
    pthread_mutex_lock(&lock);
    struct symbol **bucket = bucket_of(host);
    *symbol = (struct symbol){host, (struct binary *)binary, name, NULL, *bucket};
    *bucket = symbol;
    pthread_mutex_unlock(&lock);
}

EXPORT void __cudaRegisterFunction(void **binary, const char *host, char *device, const char *name,
                                   int threads, void *thread, void *block, void *block_size, void *grid_size,
                                   int *warp_size) {
    add(binary, host, name);
}

EXPORT void __cudaRegisterVar(void **binary, char *host, char *device, const char *name, int external,
                              size_t size, int constant, int global) {
    add(binary, host, name);
}

// With the lock held.
static struct symbol *find(const void *host) {
    struct symbol *symbol = *bucket_of(host);
    while (symbol && symbol->host != host)
        symbol = symbol->next;
    return symbol;
}

static cudaError_t load(struct binary *binary) {
    return binary->library
               ? cudaSuccess
               : CALL(cuLibraryLoadData, &binary->library, binary->image, NULL, NULL, 0, NULL, NULL, 0);
}

cudaError_t kernel_of(const void *host, CUkernel *kernel) {
    ENTER();
    pthread_mutex_lock(&lock);
    struct symbol *symbol = find(host);
    cudaError_t error = symbol ? load(symbol->binary) : cudaErrorInvalidDeviceFunction;
    if (!error && !symbol->kernel)
        error = CALL(cuLibraryGetKernel, &symbol->kernel, symbol->binary->library, symbol->name);
    if (!error)
        *kernel = symbol->kernel;
    pthread_mutex_unlock(&lock);
    return keep(error);
}

static cudaError_t variable_of(const void *host, CUdeviceptr *at, size_t *size) {
    ENTER();
    pthread_mutex_lock(&lock);
    struct symbol *symbol = find(host);
    cudaError_t error = symbol ? load(symbol->binary) : cudaErrorInvalidSymbol;
    if (!error)
        error = CALL(cuLibraryGetGlobal, at, size, symbol->binary->library, symbol->name);
    pthread_mutex_unlock(&lock);
    return keep(error);
}

EXPORT cudaError_t cudaGetSymbolAddress(void **at, const void *symbol) {
    size_t size;
    return variable_of(symbol, (CUdeviceptr *)at, &size);
}

EXPORT cudaError_t cudaGetSymbolSize(size_t *size, const void *symbol) {
    CUdeviceptr at;
    return variable_of(symbol, &at, size);
}

EXPORT cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t offset,
                                      enum cudaMemcpyKind kind) {
    CUdeviceptr at;
    size_t room;
    cudaError_t error = variable_of(symbol, &at, &room);
    return error ? error : keep(CALL(cuMemcpy, at + offset, (CUdeviceptr)from, size));
}

EXPORT cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset,
                                        enum cudaMemcpyKind kind) {
    CUdeviceptr at;
    size_t room;
    cudaError_t error = variable_of(symbol, &at, &room);
    return error ? error : keep(CALL(cuMemcpy, (CUdeviceptr)to, at + offset, size));
}
