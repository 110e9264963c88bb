// SPDX-License-Identifier: Apache-2.0
// A program of the CUDA runtime, linked with -lcudart as nvcc -cudart shared links it. Its arguments are what
// it does, in order, `verb` or `verb=number`; for each it prints a line: the error's name, and what else
// there is to say.
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 256 };
static void *blocks[MOST];
static unsigned count;
static cudaStream_t stream;

static cudaError_t kept(cudaError_t error, void *block) {
    if (!error && count < MOST)
        blocks[count++] = block;
    return error;
}

static cudaError_t linear(size_t n) {
    void *block = NULL;
    cudaError_t error = cudaMalloc(&block, n);
    return kept(error, block);
}

static cudaError_t managed(size_t n) {
    void *block = NULL;
    cudaError_t error = cudaMallocManaged(&block, n, cudaMemAttachGlobal);
    return kept(error, block);
}

static cudaError_t pitched(size_t rows) {
    void *block = NULL;
    size_t pitch;
    cudaError_t error = cudaMallocPitch(&block, &pitch, 1000, rows);
    return kept(error, block);
}

static cudaError_t async(size_t n) {
    void *block = NULL;
    cudaError_t error = cudaMallocAsync(&block, n, stream);
    return kept(error, block);
}

static cudaError_t pool(size_t n) {
    static cudaMemPool_t own;
    struct cudaMemPoolProps properties = {.allocType = cudaMemAllocationTypePinned,
                                          .location = {.type = cudaMemLocationTypeDevice}};
    void *block = NULL;
    cudaError_t error = own ? cudaSuccess : cudaMemPoolCreate(&own, &properties);
    if (!error)
        error = cudaMallocFromPoolAsync(&block, n, own, stream);
    return kept(error, block);
}

static cudaError_t host(size_t n) {
    void *block;
    cudaError_t error = cudaHostAlloc(&block, n, 0);
    return error ? error : cudaFreeHost(block);
}

// The block that was made last.
static cudaError_t end(size_t n) {
    (void)n;
    return count ? cudaFree(blocks[--count]) : cudaErrorInvalidValue;
}

static cudaError_t end_async(size_t n) {
    (void)n;
    cudaError_t error = count ? cudaFreeAsync(blocks[--count], stream) : cudaErrorInvalidValue;
    return error ? error : cudaStreamSynchronize(stream);
}

static cudaError_t info(size_t n) {
    size_t left = n, total;
    cudaError_t error = cudaMemGetInfo(&left, &total);
    printf("%zu %zu ", left, total);
    return error;
}

static cudaError_t properties(size_t device) {
    struct cudaDeviceProp is;
    cudaError_t error = cudaGetDeviceProperties(&is, (int)device);
    if (!error)
        printf("%zu %d.%d %d ", is.totalGlobalMem, is.major, is.minor, is.memoryPoolsSupported);
    return error;
}

static cudaError_t copy(size_t n) {
    char *out = calloc(1, n), *in = malloc(n);
    void *block;
    struct cudaPointerAttributes is = {0};
    memset(in, 7, n);
    cudaError_t error = cudaMalloc(&block, n);
    if (!error)
        error = cudaMemcpy(block, in, n, cudaMemcpyHostToDevice);
    if (!error)
        error = cudaMemcpyAsync(out, block, n, cudaMemcpyDeviceToHost, stream);
    if (!error)
        error = cudaPointerGetAttributes(&is, block);
    printf("%d %d ", memcmp(in, out, n), is.type == cudaMemoryTypeDevice);
    cudaFree(block);
    free(in);
    free(out);
    return error;
}

static cudaError_t streams(size_t n) {
    cudaEvent_t from, to;
    float ms = -1;
    (void)n;
    cudaError_t error = cudaStreamCreate(&stream);
    if (!error)
        error = cudaEventCreate(&from);
    if (!error)
        error = cudaEventCreate(&to);
    if (!error)
        error = cudaEventRecord(from, stream);
    if (!error)
        error = cudaEventRecord(to, stream);
    if (!error)
        error = cudaEventSynchronize(to);
    if (!error)
        error = cudaEventElapsedTime(&ms, from, to);
    printf("%d ", ms >= 0);
    return error;
}

// A graph of one allocation of this size, which is taken when it runs.
static cudaError_t graph(size_t n) {
    void *block;
    cudaGraph_t captured;
    cudaGraphExec_t instance;
    cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
    if (!error)
        error = cudaMallocAsync(&block, n, stream);
    if (!error)
        error = cudaFreeAsync(block, stream);
    if (!error)
        error = cudaStreamEndCapture(stream, &captured);
    if (!error)
        error = cudaGraphInstantiate(&instance, captured, 0);
    if (!error)
        error = cudaGraphLaunch(instance, stream);
    return error ? error : cudaStreamSynchronize(stream);
}

void **__cudaRegisterFatBinary(void *wrapper);
void __cudaRegisterFunction(void **binary, const char *host, char *device, const char *name, int threads,
                            void *thread, void *block, void *block_size, void *grid_size, int *warp_size);

// As nvcc's start-up code: a fat binary (its header alone: nothing is ever run) and a kernel in it.
static cudaError_t launch(size_t threads) {
    static const uint64_t binary[4] = {0x00100001ba55ed50};
    static const struct {
        int magic, version;
        const void *data;
        void *names;
    } wrapper = {0x466243b1, 1, binary, NULL};
    static char stub;
    void **registered = __cudaRegisterFatBinary((void *)(uintptr_t)&wrapper);
    __cudaRegisterFunction(registered, &stub, NULL, "kernel", -1, NULL, NULL, NULL, NULL, NULL);
    return cudaLaunchKernel(&stub, (dim3){1, 1, 1}, (dim3){(unsigned)threads, 1, 1}, NULL, 0, stream);
}

static cudaError_t unknown_kernel(size_t n) {
    static char stub;
    (void)n;
    return cudaLaunchKernel(&stub, (dim3){1, 1, 1}, (dim3){1, 1, 1}, NULL, 0, stream);
}

static cudaError_t last(size_t n) {
    (void)n;
    cudaError_t error = cudaGetLastError();
    printf("\"%s\" ", cudaGetErrorString(error));
    return error;
}

static cudaError_t devices(size_t n) {
    int number = (int)n;
    cudaError_t error = cudaGetDeviceCount(&number);
    printf("%d ", number);
    return error;
}

static cudaError_t choose(size_t device) {
    return cudaSetDevice((int)device);
}

static cudaError_t reset(size_t n) {
    (void)n;
    count = 0;
    return cudaDeviceReset();
}

// What the stand-in has a name for, and no body.
static cudaError_t unsupported(size_t n) {
    (void)n;
    return cudaGraphKernelNodeGetParams(NULL, NULL);
}

static const struct {
    const char *name;
    cudaError_t (*run)(size_t n);
} verbs[] = {
    {"malloc", linear},   {"managed", managed}, {"pitched", pitched}, {"async", async},
    {"pool", pool},       {"host", host},       {"free", end},        {"free-async", end_async},
    {"info", info},       {"copy", copy},       {"streams", streams}, {"properties", properties},
    {"graph", graph},     {"launch", launch},   {"last", last},       {"unknown-kernel", unknown_kernel},
    {"devices", devices}, {"choose", choose},   {"reset", reset},     {"unsupported", unsupported}};

static int run(const char *word) {
    size_t length = strcspn(word, "=");
    size_t n = word[length] ? strtoull(word + length + 1, NULL, 10) : 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strlen(verbs[i].name) == length && !strncmp(verbs[i].name, word, length)) {
            cudaError_t error = verbs[i].run(n);
            printf("%s\n", cudaGetErrorName(error));
            return 0;
        }
    fprintf(stderr, "what is %s?\n", word);
    return 2;
}

int main(int argc, char **argv) {
    int status = 0;
    for (int i = 1; i < argc && !status; i++)
        status = run(argv[i]);
    return status;
}
