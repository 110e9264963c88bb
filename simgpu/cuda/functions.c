// SPDX-License-Identifier: Apache-2.0
// Functions and kernels: what they are asked about, and their launches, which succeed and do nothing. Also
// the linker, whose product is what it was given.
#include "graphs.h"
#include "modules.h"
#include <stdlib.h>
#include <string.h>

#define NEED_FUNCTION(function)                                                                              \
    do {                                                                                                     \
        if (!function_is(function))                                                                          \
            return CUDA_ERROR_INVALID_HANDLE;                                                                \
    } while (0)

API(cuFuncGetName, const char **name, CUfunction function) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(name);
    *name = function->name;
    return CUDA_SUCCESS;
}

API(cuKernelGetName, const char **name, CUkernel kernel) {
    ENTER();
    return cuFuncGetName(name, kernel);
}

API(cuFuncGetModule, CUmodule *module, CUfunction function) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(module);
    *module = function->module;
    return CUDA_SUCCESS;
}

API(cuKernelGetLibrary, CUlibrary *library, CUkernel kernel) {
    ENTER();
    NEED_FUNCTION(kernel);
    NEED(library);
    *library = kernel->library;
    return CUDA_SUCCESS;
}

API(cuFuncLoad, CUfunction function) {
    ENTER();
    NEED_FUNCTION(function);
    return CUDA_SUCCESS;
}

API(cuFuncIsLoaded, int *state, CUfunction function) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(state);
    *state = 1;
    return CUDA_SUCCESS;
}

API(cuFuncGetAttribute, int *value, int attribute, CUfunction function) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(value && attribute >= 0 && attribute < FUNCTION_ATTRIBUTES);
    *value = function->attribute[attribute];
    return CUDA_SUCCESS;
}

API(cuFuncSetAttribute, CUfunction function, int attribute, int value) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(attribute >= 0 && attribute < FUNCTION_ATTRIBUTES);
    function->attribute[attribute] = value;
    return CUDA_SUCCESS;
}

API(cuKernelGetAttribute, int *value, int attribute, CUkernel kernel, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    return cuFuncGetAttribute(value, attribute, kernel);
}

API(cuKernelSetAttribute, int attribute, int value, CUkernel kernel, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    return cuFuncSetAttribute(kernel, attribute, value);
}

API(cuFuncSetCacheConfig, CUfunction function, UNUSED int config) {
    ENTER();
    NEED_FUNCTION(function);
    return CUDA_SUCCESS;
}

API(cuKernelSetCacheConfig, CUkernel kernel, UNUSED int config, CUdevice device) {
    ENTER();
    NEED_DEVICE(device);
    NEED_FUNCTION(kernel);
    return CUDA_SUCCESS;
}

API(cuFuncSetSharedMemConfig, CUfunction function, UNUSED int config) {
    ENTER();
    NEED_FUNCTION(function);
    return CUDA_SUCCESS;
}

// ------- occupancy

static int blocks_of(int threads) {
    enum { THREADS = 2048, BLOCKS = 32 };
    int blocks = THREADS / threads;
    return blocks > BLOCKS ? BLOCKS : blocks;
}

API(cuOccupancyMaxActiveBlocksPerMultiprocessor, int *blocks, CUfunction function, int threads,
    UNUSED size_t shared) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(blocks && threads > 0);
    *blocks = threads > 1024 ? 0 : blocks_of(threads);
    return CUDA_SUCCESS;
}

API(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, int *blocks, CUfunction function, int threads,
    size_t shared, UNUSED unsigned flags) {
    ENTER();
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared);
}

API(cuOccupancyMaxPotentialBlockSize, int *grid, int *block, CUfunction function,
    UNUSED void *shared_of_block, UNUSED size_t shared, int limit) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(grid && block);
    int sms = (int)driver.device[0].sms;
    *block = limit > 0 && limit < 1024 ? limit : 1024;
    *grid = sms * blocks_of(*block);
    return CUDA_SUCCESS;
}

API(cuOccupancyMaxPotentialBlockSizeWithFlags, int *grid, int *block, CUfunction function,
    void *shared_of_block, size_t shared, int limit, UNUSED unsigned flags) {
    ENTER();
    return cuOccupancyMaxPotentialBlockSize(grid, block, function, shared_of_block, shared, limit);
}

API(cuOccupancyAvailableDynamicSMemPerBlock, size_t *size, CUfunction function, int blocks, int threads) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(size && blocks > 0 && threads > 0);
    *size = 49152;
    return CUDA_SUCCESS;
}

API(cuOccupancyMaxActiveClusters, int *clusters, CUfunction function, UNUSED const CUlaunchConfig *config) {
    ENTER();
    NEED_FUNCTION(function);
    NEED(clusters);
    *clusters = 1;
    return CUDA_SUCCESS;
}

// ------- launches

static CUresult launch(struct context *ctx, CUstream stream, CUfunction function, unsigned grid,
                       unsigned block) {
    NEED_FUNCTION(function);
    NEED(grid && block && block <= 1024);
    OR_CAPTURE(stream, .type = NODE_KERNEL, .kernel = {.function = function});
    CUresult result = function->module ? CUDA_SUCCESS : kernel_load(function, ctx);
    return result ? result : context_launched(ctx);
}

API(cuLaunchKernel, CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, UNUSED unsigned shared, CUstream stream, UNUSED void **arguments, UNUSED void **extra) {
    ENTER_CONTEXT();
    return launch(ctx, stream, function, gx && gy && gz, bx * by * bz);
}

API(cuLaunchKernelEx, const CUlaunchConfig *config, CUfunction function, UNUSED void **arguments,
    UNUSED void **extra) {
    ENTER_CONTEXT();
    NEED(config);
    return launch(ctx, config->hStream, function, config->gridDimX && config->gridDimY && config->gridDimZ,
                  config->blockDimX * config->blockDimY * config->blockDimZ);
}

API(cuLaunchCooperativeKernel, CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
    unsigned by, unsigned bz, UNUSED unsigned shared, CUstream stream, UNUSED void **arguments) {
    ENTER_CONTEXT();
    return launch(ctx, stream, function, gx && gy && gz, bx * by * bz);
}

// ------- the linker: texts are put one behind the other, of anything else the last input is the product

enum { LINK_MAGIC = 0x4c494e4b };

struct link {
    uint32_t magic;
    bool text;
    char *bytes;
    size_t size;
};

static bool is_link(const struct link *link) {
    return link && link->magic == LINK_MAGIC;
}

API(cuLinkCreate_v2, UNUSED unsigned n, UNUSED void *options, UNUSED void *values, CUlinkState *out) {
    ENTER();
    NEED(out);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*out)->magic = LINK_MAGIC;
    return CUDA_SUCCESS;
}

API(cuLinkAddData_v2, CUlinkState link, int type, void *bytes, size_t size, UNUSED const char *name,
    UNUSED unsigned n, UNUSED void *options, UNUSED void *values) {
    enum { PTX = 1 };
    ENTER();
    if (!is_link(link))
        return CUDA_ERROR_INVALID_HANDLE;
    NEED(bytes && size);
    bool append = type == PTX && link->text;
    size_t old = append ? strlen(link->bytes) : 0;
    char *more = realloc(link->bytes, old + size + 1);
    if (!more)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(more + old, bytes, size);
    more[old + size] = 0;
    link->text = type == PTX;
    link->bytes = more;
    link->size = old + size;
    return CUDA_SUCCESS;
}

API(cuLinkComplete, CUlinkState link, void **bytes, size_t *size) {
    ENTER();
    if (!is_link(link))
        return CUDA_ERROR_INVALID_HANDLE;
    NEED(bytes && link->bytes);
    *bytes = link->bytes;
    if (size)
        *size = link->size;
    return CUDA_SUCCESS;
}

API(cuLinkDestroy, CUlinkState link) {
    ENTER();
    if (!is_link(link))
        return CUDA_ERROR_INVALID_HANDLE;
    link->magic = 0;
    free(link->bytes);
    free(link);
    return CUDA_SUCCESS;
}
