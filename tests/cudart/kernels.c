// SPDX-License-Identifier: Apache-2.0
// What the runtime says of a kernel, and what can be set for it.
#include "code.h"
#include <stddef.h>
#include <string.h>

static const struct {
    size_t at, bytes;
    CUfunction_attribute attribute;
} attributes[] = {
#define ATTRIBUTE(member, attribute)                                                                         \
    {offsetof(struct cudaFuncAttributes, member), sizeof((struct cudaFuncAttributes *)0)->member,            \
     CU_FUNC_ATTRIBUTE_##attribute}
    ATTRIBUTE(sharedSizeBytes, SHARED_SIZE_BYTES),
    ATTRIBUTE(constSizeBytes, CONST_SIZE_BYTES),
    ATTRIBUTE(localSizeBytes, LOCAL_SIZE_BYTES),
    ATTRIBUTE(maxThreadsPerBlock, MAX_THREADS_PER_BLOCK),
    ATTRIBUTE(numRegs, NUM_REGS),
    ATTRIBUTE(ptxVersion, PTX_VERSION),
    ATTRIBUTE(binaryVersion, BINARY_VERSION),
    ATTRIBUTE(maxDynamicSharedSizeBytes, MAX_DYNAMIC_SHARED_SIZE_BYTES),
#undef ATTRIBUTE
};

static void set(struct cudaFuncAttributes *out, size_t i, int value) {
    char *at = (char *)out + attributes[i].at;
    if (attributes[i].bytes == sizeof(size_t))
        *(size_t *)(void *)at = (size_t)value;
    else
        *(int *)(void *)at = value;
}

static cudaError_t kernel_here(const void *host, CUkernel *kernel, int *device) {
    cudaError_t error = kernel_of(host, kernel);
    return error ? error : keep(current_device(device));
}

EXPORT cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *host) {
    CUkernel kernel;
    int device;
    cudaError_t error = kernel_here(host, &kernel, &device);
    memset(out, 0, sizeof *out);
    for (size_t i = 0; !error && i < sizeof attributes / sizeof *attributes; i++) {
        int value = 0;
        error = CALL(cuKernelGetAttribute, &value, attributes[i].attribute, kernel, device);
        set(out, i, value);
    }
    return keep(error);
}

EXPORT cudaError_t cudaFuncSetAttribute(const void *host, enum cudaFuncAttribute which, int value) {
    CUkernel kernel;
    int device;
    cudaError_t error = kernel_here(host, &kernel, &device);
    return error ? error
                 : keep(CALL(cuKernelSetAttribute, (CUfunction_attribute)which, value, kernel, device));
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *host,
                                                                          int block, size_t shared,
                                                                          unsigned flags) {
    CUkernel kernel;
    CUfunction function;
    cudaError_t error = kernel_of(host, &kernel);
    if (!error)
        error = CALL(cuKernelGetFunction, &function, kernel);
    if (!error)
        error = CALL(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, blocks, function, block, shared,
                     flags);
    return keep(error);
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *host, int block,
                                                                 size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, block, shared, 0);
}
