// SPDX-License-Identifier: Apache-2.0
/* Pools that are destroyed while several threads free the last blocks of them, and made again at once.
 *
 *   pool_storm LIBRARY ROUNDS     -> bytes free for the process before, and when all is gone */
#include "abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 3, BYTES = 4096 };

static void *library;
static CUcontext context;
static pthread_barrier_t begin, done;
static CUdeviceptr block[2][THREADS]; /* of two rounds in turn: the next ones are made while these go */
static long rounds;

static void *function(const char *name) {
    void *at = dlsym(library, name);
    if (!at)
        exit(3);
    return at;
}

#define CALL(name, types, ...)                                                                               \
    do {                                                                                                     \
        CUresult rc_ = ((CUresult(*) types)function(#name))(__VA_ARGS__);                                    \
        if (rc_) {                                                                                           \
            fprintf(stderr, "%s: %d\n", #name, rc_);                                                         \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void *free_blocks(void *number) {
    CALL(cuCtxSetCurrent, (CUcontext), context);
    for (long round = 0; round < rounds; round++) {
        pthread_barrier_wait(&begin);
        CALL(cuMemFreeAsync, (CUdeviceptr, CUstream), block[round % 2][(long)number], NULL);
        pthread_barrier_wait(&done);
    }
    return NULL;
}

static CUmemoryPool make_pool(CUdeviceptr *blocks) {
    CUmemPoolProps props = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
    CUmemoryPool pool;
    CALL(cuMemPoolCreate, (CUmemoryPool *, const CUmemPoolProps *), &pool, &props);
    for (int i = 0; i < THREADS; i++)
        CALL(cuMemAllocFromPoolAsync, (CUdeviceptr *, size_t, CUmemoryPool, CUstream), &blocks[i], BYTES,
             pool, NULL);
    return pool;
}

static size_t bytes_free(void) {
    size_t free, total;
    CALL(cuMemGetInfo_v2, (size_t *, size_t *), &free, &total);
    return free;
}

int main(int argc, char **argv) {
    pthread_t thread[THREADS];
    library = argc == 3 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library)
        return 2;
    rounds = atol(argv[2]);
    CALL(cuInit, (unsigned), 0);
    CALL(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice), &context, 0);
    CALL(cuCtxSetCurrent, (CUcontext), context);
    size_t before = bytes_free();
    pthread_barrier_init(&begin, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, free_blocks, (void *)i))
            return 3;
    CUmemoryPool pool = make_pool(block[0]);
    for (long round = 0; round < rounds; round++) {
        pthread_barrier_wait(&begin);
        CALL(cuMemPoolDestroy, (CUmemoryPool), pool);
        pool = make_pool(block[(round + 1) % 2]);
        pthread_barrier_wait(&done);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        CALL(cuMemFreeAsync, (CUdeviceptr, CUstream), block[rounds % 2][i], NULL);
    }
    CALL(cuMemPoolDestroy, (CUmemoryPool), pool);
    printf("%zu %zu\n", before, bytes_free());
    return 0;
}
