// SPDX-License-Identifier: Apache-2.0
// Launches, in the forms that nvcc's code and C++ templates use.
#include "code.h"
#include <string.h>

enum { NESTED = 16 };

// What nvcc's code declares for itself.
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream);

// The arguments between the triple brackets of a launch, until the launch fetches them.
static __thread struct configuration {
    dim3 grid, block;
    size_t shared;
    void *stream;
} pushed[NESTED];
static __thread unsigned count;

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                            struct CUstream_st *stream) {
    if (count == NESTED)
        return 1;
    pushed[count++] = (struct configuration){grid, block, shared, stream};
    return 0;
}

EXPORT cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    if (!count)
        return keep(cudaErrorMissingConfiguration);
    struct configuration last = pushed[--count];
    *grid = last.grid;
    *block = last.block;
    *shared = last.shared;
    memcpy(stream, &last.stream, sizeof last.stream);
    return cudaSuccess;
}

static cudaError_t launch(CUkernel kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                          cudaStream_t stream) {
    return keep(CALL(cuLaunchKernel, (CUfunction)kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z,
                     (unsigned)shared, stream, arguments, NULL));
}

EXPORT cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **arguments, size_t shared,
                                    cudaStream_t stream) {
    CUkernel kernel;
    cudaError_t error = kernel_of(host, &kernel);
    return error ? error : launch(kernel, grid, block, arguments, shared, stream);
}

EXPORT cudaError_t cudaLaunchCooperativeKernel(const void *host, dim3 grid, dim3 block, void **arguments,
                                               size_t shared, cudaStream_t stream) {
    CUkernel kernel;
    cudaError_t error = kernel_of(host, &kernel);
    return error ? error
                 : keep(CALL(cuLaunchCooperativeKernel, (CUfunction)kernel, grid.x, grid.y, grid.z, block.x,
                             block.y, block.z, (unsigned)shared, stream, arguments));
}

EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host) {
    return kernel_of(host, kernel);
}

EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                                      size_t shared, cudaStream_t stream) {
    ENTER();
    return launch(kernel, grid, block, arguments, shared, stream);
}

EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *asked, const void *host, void **arguments) {
    CUkernel kernel;
    cudaError_t error = kernel_of(host, &kernel);
    if (error)
        return error;
    dim3 grid = asked->gridDim, block = asked->blockDim;
    CUlaunchConfig config = {.gridDimX = grid.x,
                             .gridDimY = grid.y,
                             .gridDimZ = grid.z,
                             .blockDimX = block.x,
                             .blockDimY = block.y,
                             .blockDimZ = block.z,
                             .sharedMemBytes = (unsigned)asked->dynamicSmemBytes,
                             .hStream = asked->stream,
                             .attrs = (CUlaunchAttribute *)asked->attrs,
                             .numAttrs = asked->numAttrs};
    return keep(CALL(cuLaunchKernelEx, &config, (CUfunction)kernel, arguments, NULL));
}
