// SPDX-License-Identifier: Apache-2.0
/* Memory that a context takes for its kernels when its limits are raised: the heap of their malloc, the
 * buffer of their printf, a stack for every thread that the GPU keeps at once. No allocation shows it, and it
 * can be gigabytes. The limits that a context begins with are part of what it costs; what is set beyond them
 * is charged in full, in whole pages, whenever the driver gets around to taking it. Limits of nested launches
 * are small and not counted. */
#include "context_limits.h"

#include "admit.h"
#include "blocks.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "sizes.h"

static uint64_t key(uint64_t context, unsigned limit) {
    return gp_key(GP_LIMIT, context << 2 | limit);
}

/* Bytes of the device that one byte of a limit stands for; 0: it is not counted. */
static uint64_t unit(unsigned limit) {
    int processors = 0, threads = 0;
    CUdevice device;
    if (limit == CU_LIMIT_PRINTF_FIFO_SIZE || limit == CU_LIMIT_MALLOC_HEAP_SIZE)
        return 1;
    if (limit != CU_LIMIT_STACK_SIZE || real_cuCtxGetDevice(&device) ||
        real_cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device) ||
        real_cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device))
        return 0;
    return (uint64_t)processors * (uint64_t)threads;
}

/* What is charged for the limit now; as it was before it was ever set, where nothing is. */
static int charged(struct gp_block *block, const struct gp_place *at, unsigned limit) {
    size_t now;
    *block = (struct gp_block){.key = key((uint64_t)at->context, limit), .gpu = (uint8_t)at->gpu};
    if (gp_blocks_see(block->key, block))
        return 1;
    if (real_cuCtxGetLimit(&now, limit))
        return 0;
    block->other = now;
    return 1;
}

static void settle(struct gp_block *block, uint64_t wanted) {
    if (wanted < block->bytes)
        gp_give_back(block->gpu, block->bytes - wanted);
    block->bytes = wanted;
    gp_blocks_put(block); /* if there is no memory for it, the charge stays: more is counted, never less */
}

GP_EXPORT CUresult cuCtxSetLimit(unsigned limit, size_t value) {
    struct gp_place at;
    struct gp_block block;
    CUresult rc = gp_whereabouts(&at);
    uint64_t each = rc || at.gpu < 0 ? 0 : unit(limit);
    if (!each || !charged(&block, &at, limit))
        return real_cuCtxSetLimit(limit, value);
    uint64_t beyond = value > block.other ? gp_times(value - block.other, each) : 0;
    uint64_t wanted = gp_round_up(beyond, gp_page(at.gpu));
    uint64_t more = wanted > block.bytes ? wanted - block.bytes : 0;
    rc = more ? gp_admit(at.gpu, more, "cuCtxSetLimit") : CUDA_SUCCESS;
    if (rc)
        return rc;
    rc = real_cuCtxSetLimit(limit, value);
    if (rc)
        gp_give_back(at.gpu, more);
    else
        settle(&block, wanted);
    return rc;
}

void gp_limits_forget(uint64_t context, uint64_t *bytes) {
    struct gp_block block;
    for (unsigned limit = 0; limit < CU_LIMITS_KNOWN; limit++)
        if (gp_blocks_take(key(context, limit), &block))
            bytes[block.gpu] += block.bytes;
}
