// SPDX-License-Identifier: Apache-2.0
/* Memory that graphs allocate when they run. It is charged when the node is made, the sum of a graph's nodes
 * together: an upper bound, for a graph reuses memory within itself. A graph's memory belongs to what was
 * instantiated from it and stays with the device afterwards, until it is trimmed; so the charge outlives the
 * graph, and goes when the driver says that its device holds no graph memory and no graph is left. */
#include "graphs.h"

#include "admit.h"
#include "blocks.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "sizes.h"

static uint64_t charge_of(int gpu, uint64_t bytes) {
    return gp_round_up(bytes, gp_page(gpu));
}

CUresult gp_graph_admit(int gpu, uint64_t bytes, const char *api) {
    return gp_admit(gpu, charge_of(gpu, bytes), api);
}

/* Adds a node's memory to its graph's. Two threads do not build one graph at a time: the driver forbids it.
 */
static void add(CUgraph graph, int gpu, uint64_t bytes) {
    struct gp_block block = {.key = gp_key(GP_GRAPH, (uint64_t)graph), .gpu = (uint8_t)gpu};
    gp_blocks_take(block.key, &block);
    block.bytes += charge_of(gpu, bytes);
    gp_blocks_put(&block);
}

static CUresult settle(CUresult rc, CUgraph graph, int gpu, uint64_t bytes) {
    if (rc)
        gp_give_back(gpu, charge_of(gpu, bytes));
    else
        add(graph, gpu, bytes);
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

static int gpu_of(const CUDA_MEM_ALLOC_NODE_PARAMS *alloc) {
    return alloc->pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? gp_gpu_of(alloc->pool.location.id)
                                                                    : GP_NO_GPU;
}

GP_EXPORT CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                          size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    if (!params || params->pool.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return real_cuGraphAddMemAllocNode(node, graph, after, count, params);
    int gpu = gpu_of(params);
    CUresult rc = gp_graph_admit(gpu, params->bytes, "cuGraphAddMemAllocNode");
    if (rc)
        return rc;
    rc = real_cuGraphAddMemAllocNode(node, graph, after, count, params);
    return settle(rc, graph, gpu, params->bytes);
}

static int allocates(const CUgraphNodeParams *params) {
    return params && params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC &&
           params->alloc.pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
}

GP_EXPORT CUresult cuGraphAddNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *after, size_t count,
                                  CUgraphNodeParams *params) {
    if (!allocates(params))
        return real_cuGraphAddNode(node, graph, after, count, params);
    int gpu = gpu_of(&params->alloc);
    CUresult rc = gp_graph_admit(gpu, params->alloc.bytes, "cuGraphAddNode");
    if (rc)
        return rc;
    rc = real_cuGraphAddNode(node, graph, after, count, params);
    return settle(rc, graph, gpu, params->alloc.bytes);
}

GP_EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *after,
                                     const void *edges, size_t count, CUgraphNodeParams *params) {
    if (!allocates(params))
        return real_cuGraphAddNode_v2(node, graph, after, edges, count, params);
    int gpu = gpu_of(&params->alloc);
    CUresult rc = gp_graph_admit(gpu, params->alloc.bytes, "cuGraphAddNode");
    if (rc)
        return rc;
    rc = real_cuGraphAddNode_v2(node, graph, after, edges, count, params);
    return settle(rc, graph, gpu, params->alloc.bytes);
}
