// SPDX-License-Identifier: Apache-2.0
/* Memory that graphs allocate when they run. A graph's nodes are charged when they are made, by the sum of
 * their sizes: an upper bound, for a graph reuses memory within itself. The memory belongs to what was
 * instantiated from the graph, so the charge is handed on; and when that is destroyed the device keeps the
 * memory for other graphs until it is trimmed, so the charge stays for as long as the driver says that the
 * device holds that much. */
#include "graphs.h"

#include "admit.h"
#include "blocks.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "raw.h"
#include "region.h"
#include "sizes.h"

/* What destroyed instances have left with their devices. */
struct own {
    uint64_t kept[GP_MAX_GPUS];
};

static struct own *own(void) {
    static void *memory;
    return gp_own_memory(&memory, sizeof(struct own));
}

uint64_t gp_graph_charge(int gpu, uint64_t bytes) {
    return gp_round_up(bytes, gp_page(gpu));
}

static CUresult admit(int gpu, uint64_t bytes, const char *api) {
    return gp_admit(gpu, gp_graph_charge(gpu, bytes), api);
}

/* What a graph, or an instance of one, allocates on one GPU. */
static struct gp_block part(enum gp_kind kind, const void *object, int gpu) {
    _Static_assert(GP_MAX_GPUS <= 16, "a GPU's number fits beside a pointer");
    return (struct gp_block){.key = gp_key(kind, (uint64_t)object << 4 | (unsigned)gpu), .gpu = (uint8_t)gpu};
}

/* Adds to what a graph allocates. Two threads do not build one graph at a time: the driver forbids it. */
static void add(CUgraph graph, int gpu, uint64_t bytes, uint64_t charged) {
    struct gp_block block = part(GP_GRAPH, graph, gpu);
    gp_blocks_take(block.key, &block);
    block.bytes += bytes;
    block.other += charged;
    gp_blocks_put(&block);
}

static CUresult settle(CUresult rc, CUgraph graph, int gpu, uint64_t bytes) {
    if (rc)
        gp_give_back(gpu, gp_graph_charge(gpu, bytes));
    else
        add(graph, gpu, gp_graph_charge(gpu, bytes), gp_graph_charge(gpu, bytes));
    return rc;
}

void gp_graph_captured(CUresult rc, int gpu, uint64_t bytes, CUstream stream, int per_thread) {
    int status;
    uint64_t id;
    CUgraph graph = NULL;
    const CUgraphNode *after;
    size_t count;
    if (!rc)
        (per_thread ? real_cuStreamGetCaptureInfo_v2_ptsz
                    : real_cuStreamGetCaptureInfo_v2)(stream, &status, &id, &graph, &after, &count);
    settle(rc, graph, gpu, bytes);
}

/* Gives back what a device no longer keeps. */
static void settle_kept(int gpu) {
    struct own *mine = own();
    uint64_t reserved, kept = mine && gpu >= 0 ? __atomic_load_n(&mine->kept[gpu], __ATOMIC_RELAXED) : 0;
    if (!kept || real_cuDeviceGetGraphMemAttribute(gp_device_of(gpu), CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT,
                                                   &reserved))
        return;
    if (reserved < kept &&
        __atomic_compare_exchange_n(&mine->kept[gpu], &kept, reserved, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        gp_give_back(gpu, kept - reserved);
}

void gp_graphs_trim(int gpu) {
    struct own *mine = own();
    if (!mine || gpu < 0 || !__atomic_load_n(&mine->kept[gpu], __ATOMIC_RELAXED))
        return;
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED; /* as for pools */
    int relaxed = real_cuThreadExchangeStreamCaptureMode(&mode) == CUDA_SUCCESS;
    real_cuDeviceGraphMemTrim(gp_device_of(gpu));
    if (relaxed)
        real_cuThreadExchangeStreamCaptureMode(&mode);
    settle_kept(gpu);
}

GP_EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device) {
    CUresult rc = real_cuDeviceGraphMemTrim(device);
    settle_kept(gp_gpu_of(device));
    return rc;
}

/* Room for an instance of a graph: what the graph does not hold for it any more. Where it allocates nothing,
 * known[gpu].bytes is 0. */
static CUresult hold(CUgraph graph, struct gp_block known[GP_MAX_GPUS]) {
    CUresult rc = CUDA_SUCCESS;
    int gpu = 0;
    for (; !rc && gpu < GP_MAX_GPUS; gpu++) {
        known[gpu] = part(GP_GRAPH, graph, gpu);
        if (gp_blocks_see(known[gpu].key, &known[gpu]) && known[gpu].bytes > known[gpu].other)
            rc = gp_admit(gpu, known[gpu].bytes - known[gpu].other, "cuGraphInstantiate");
    }
    for (gpu -= 2; rc && gpu >= 0; gpu--)
        gp_give_back(gpu, known[gpu].bytes - known[gpu].other);
    return rc;
}

static CUresult instantiated(CUresult rc, CUgraphExec *instance, struct gp_block known[GP_MAX_GPUS]) {
    for (int gpu = 0; gpu < GP_MAX_GPUS; gpu++) {
        if (rc) {
            gp_give_back(gpu, known[gpu].bytes - known[gpu].other);
        } else if (known[gpu].bytes) {
            struct gp_block made = part(GP_INSTANCE, *instance, gpu);
            made.bytes = known[gpu].bytes;
            known[gpu].other = 0;
            gp_blocks_put(&known[gpu]);
            gp_blocks_put(&made);
        }
    }
    return rc;
}

#define INSTANTIATE(call)                                                                                    \
    struct gp_block known[GP_MAX_GPUS];                                                                      \
    CUresult rc = hold(graph, known);                                                                        \
    return rc ? rc : instantiated(call, instance, known)

GP_EXPORT CUresult cuGraphInstantiate(CUgraphExec *instance, CUgraph graph, CUgraphNode *bad, char *log,
                                      size_t room) {
    INSTANTIATE(real_cuGraphInstantiate(instance, graph, bad, log, room));
}
GP_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *instance, CUgraph graph, CUgraphNode *bad, char *log,
                                         size_t room) {
    INSTANTIATE(real_cuGraphInstantiate_v2(instance, graph, bad, log, room));
}
GP_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *instance, CUgraph graph,
                                               unsigned long long flags) {
    INSTANTIATE(real_cuGraphInstantiateWithFlags(instance, graph, flags));
}
GP_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *instance, CUgraph graph, void *params) {
    INSTANTIATE(real_cuGraphInstantiateWithParams(instance, graph, params));
}
GP_EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *instance, CUgraph graph, void *params) {
    INSTANTIATE(real_cuGraphInstantiateWithParams_ptsz(instance, graph, params));
}

/* The entries go before the driver ends it: its address may be the next one's at once. */
static int take_parts(enum gp_kind kind, const void *object, struct gp_block parts[GP_MAX_GPUS]) {
    int count = 0;
    for (int gpu = 0; gpu < GP_MAX_GPUS; gpu++)
        count += gp_blocks_take(part(kind, object, gpu).key, &parts[count]);
    return count;
}

GP_EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    struct gp_block parts[GP_MAX_GPUS];
    int count = take_parts(GP_GRAPH, graph, parts);
    CUresult rc = real_cuGraphDestroy(graph);
    for (int i = 0; i < count; i++) {
        if (rc)
            gp_blocks_put(&parts[i]);
        else
            gp_give_back(parts[i].gpu, parts[i].other);
    }
    return rc;
}

GP_EXPORT CUresult cuGraphExecDestroy(CUgraphExec instance) {
    struct gp_block parts[GP_MAX_GPUS];
    struct own *mine = own();
    int count = take_parts(GP_INSTANCE, instance, parts);
    CUresult rc = real_cuGraphExecDestroy(instance);
    for (int i = 0; i < count; i++) {
        if (rc) {
            gp_blocks_put(&parts[i]);
        } else if (mine) {
            __atomic_fetch_add(&mine->kept[parts[i].gpu], parts[i].bytes, __ATOMIC_RELAXED);
            settle_kept(parts[i].gpu);
        }
    }
    return rc;
}

static int gpu_of(const CUDA_MEM_ALLOC_NODE_PARAMS *alloc) {
    return gp_gpu_of(alloc->pool.location.id);
}

GP_EXPORT CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                          size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    if (!params || params->pool.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return real_cuGraphAddMemAllocNode(node, graph, after, count, params);
    int gpu = gpu_of(params);
    CUresult rc = admit(gpu, params->bytes, "cuGraphAddMemAllocNode");
    if (rc)
        return rc;
    rc = real_cuGraphAddMemAllocNode(node, graph, after, count, params);
    return settle(rc, graph, gpu, params->bytes);
}

static int allocates(const CUgraphNodeParams *params) {
    return params && params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC &&
           params->alloc.pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

/* A child graph that is moved into another, not copied (CUDA 12.9), takes its memory with it. */
static CUresult moved(CUresult rc, CUgraph graph, const CUgraphNodeParams *params) {
    struct gp_block parts[GP_MAX_GPUS];
    if (rc || !params || params->type != CU_GRAPH_NODE_TYPE_GRAPH ||
        params->child.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE)
        return rc;
    int count = take_parts(GP_GRAPH, params->child.graph, parts);
    for (int i = 0; i < count; i++)
        add(graph, parts[i].gpu, parts[i].bytes, parts[i].other);
    return rc;
}

GP_EXPORT CUresult cuGraphAddNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                  CUgraphNodeParams *params) {
    if (!allocates(params))
        return moved(real_cuGraphAddNode(node, graph, after, count, params), graph, params);
    int gpu = gpu_of(&params->alloc);
    CUresult rc = admit(gpu, params->alloc.bytes, "cuGraphAddNode");
    if (rc)
        return rc;
    rc = real_cuGraphAddNode(node, graph, after, count, params);
    return settle(rc, graph, gpu, params->alloc.bytes);
}

static CUresult add_node(CUresult (*driver)(CUgraphNode *, CUgraph, const CUgraphNode *, const void *, size_t,
                                            CUgraphNodeParams *),
                         CUgraphNode *node, CUgraph graph, const CUgraphNode *after, const void *edges,
                         size_t count, CUgraphNodeParams *params) {
    if (!allocates(params))
        return moved(driver(node, graph, after, edges, count, params), graph, params);
    int gpu = gpu_of(&params->alloc);
    CUresult rc = admit(gpu, params->alloc.bytes, "cuGraphAddNode");
    if (rc)
        return rc;
    rc = driver(node, graph, after, edges, count, params);
    return settle(rc, graph, gpu, params->alloc.bytes);
}

GP_EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                     const void *edges, size_t count, CUgraphNodeParams *params) {
    return add_node(real_cuGraphAddNode_v2, node, graph, after, edges, count, params);
}
GP_EXPORT CUresult cuGraphAddNode_v3(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                     const void *edges, size_t count, CUgraphNodeParams *params) {
    return add_node(real_cuGraphAddNode_v3, node, graph, after, edges, count, params);
}
