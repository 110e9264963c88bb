// SPDX-License-Identifier: Apache-2.0
// The calls that put nodes into graphs, one for each kind and one for all kinds.
#include "graphs.h"
#include <string.h>

// The widest form of parameters: a type and 29 words.
typedef struct {
    int type;
    int reserved[3];
    union {
        long long words[29];
        CUDA_KERNEL_NODE_PARAMS kernel;
        struct {
            int flags, reserved;
            CUcontext context;
            CUDA_MEMCPY3D copy;
        } copy;
        CUDA_MEMSET_NODE_PARAMS fill;
        CUDA_HOST_NODE_PARAMS host;
        CUgraph child;
        CUevent event;
        CUDA_MEM_ALLOC_NODE_PARAMS alloc;
        CUdeviceptr free;
    };
    long long reserved2;
} CUgraphNodeParams;
_Static_assert(sizeof(CUgraphNodeParams) == 256, "ABI");

static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
                    const struct work *work) {
    NEED(out && graph_is(graph));
    return graph_add(out, graph, after, count, work);
}

// Both kinds of memory nodes hold on to what they allocate or free.
static CUresult add_memory(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
                           struct work *work, struct context *ctx) {
    NEED(out && graph_is(graph));
    CUresult result = CUDA_SUCCESS;
    lock_acquire(&driver.lock);
    if (work->type == NODE_ALLOC)
        result = allocation_new(work, ctx);
    else if ((work->allocation = allocation_at(work->free)))
        work->allocation->references++;
    else
        result = place_find(work->free).kind == KIND_POOL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    lock_release(&driver.lock);
    if (!result && (result = graph_add(out, graph, after, count, work)) && work->allocation) {
        lock_acquire(&driver.lock);
        allocation_drop(work->allocation);
        lock_release(&driver.lock);
    }
    return result;
}

static CUresult add_child(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
                          CUgraph child) {
    struct work work = {.type = NODE_GRAPH};
    NEED(graph_is(graph) && graph_is(child) && child != graph);
    if (graph_allocates(child))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = graph_copy(&work.child, child);
    if (!result && (result = add(out, graph, after, count, &work)))
        graph_free(work.child);
    return result;
}

API(cuGraphAddEmptyNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count) {
    ENTER();
    return add(out, graph, after, count, &(struct work){.type = NODE_EMPTY});
}

static CUresult add_kernel(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
                           const void *parameters, size_t size) {
    struct work work = {.type = NODE_KERNEL};
    NEED(parameters);
    memcpy(&work.kernel, parameters, size);
    return add(out, graph, after, count, &work);
}

API(cuGraphAddKernelNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    const CUDA_KERNEL_NODE_PARAMS *parameters) {
    ENTER();
    return add_kernel(out, graph, after, count, parameters, offsetof(CUDA_KERNEL_NODE_PARAMS, kernel));
}

API(cuGraphAddKernelNode_v2, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    const CUDA_KERNEL_NODE_PARAMS *parameters) {
    ENTER();
    return add_kernel(out, graph, after, count, parameters, sizeof *parameters);
}

API(cuGraphAddMemcpyNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    const CUDA_MEMCPY3D *box, UNUSED CUcontext context) {
    ENTER();
    NEED(box);
    return add(out, graph, after, count, &(struct work){.type = NODE_MEMCPY, .copy = *box});
}

API(cuGraphAddMemsetNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    const CUDA_MEMSET_NODE_PARAMS *parameters, UNUSED CUcontext context) {
    ENTER();
    NEED(parameters);
    return add(out, graph, after, count, &(struct work){.type = NODE_MEMSET, .fill = *parameters});
}

API(cuGraphAddHostNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    const CUDA_HOST_NODE_PARAMS *parameters) {
    ENTER();
    NEED(parameters && parameters->function);
    return add(out, graph, after, count, &(struct work){.type = NODE_HOST, .host = *parameters});
}

API(cuGraphAddChildGraphNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUgraph child) {
    ENTER();
    return add_child(out, graph, after, count, child);
}

API(cuGraphChildGraphNodeGetGraph, CUgraphNode node, CUgraph *out) {
    ENTER();
    NEED(node_is(node) && node->work.type == NODE_GRAPH && out);
    *out = node->work.child;
    return CUDA_SUCCESS;
}

API(cuGraphAddEventRecordNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUevent event) {
    ENTER();
    return add(out, graph, after, count, &(struct work){.type = NODE_RECORD_EVENT, .event = event});
}

API(cuGraphAddEventWaitNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUevent event) {
    ENTER();
    return add(out, graph, after, count, &(struct work){.type = NODE_WAIT_EVENT, .event = event});
}

API(cuGraphAddMemAllocNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUDA_MEM_ALLOC_NODE_PARAMS *parameters) {
    ENTER_CONTEXT();
    NEED(parameters);
    struct work work = {.type = NODE_ALLOC, .alloc = *parameters};
    CUresult result = add_memory(out, graph, after, count, &work, ctx);
    if (!result)
        parameters->at = work.alloc.at;
    return result;
}

API(cuGraphMemAllocNodeGetParams, CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out) {
    ENTER();
    NEED(node_is(node) && node->work.type == NODE_ALLOC && out);
    *out = node->work.alloc;
    return CUDA_SUCCESS;
}

API(cuGraphAddMemFreeNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUdeviceptr address) {
    ENTER_CONTEXT();
    struct work work = {.type = NODE_FREE, .free = address};
    return add_memory(out, graph, after, count, &work, ctx);
}

API(cuGraphMemFreeNodeGetParams, CUgraphNode node, CUdeviceptr *out) {
    ENTER();
    NEED(node_is(node) && node->work.type == NODE_FREE && out);
    *out = node->work.free;
    return CUDA_SUCCESS;
}

// ------- any kind

static CUresult add_any(CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
                        CUgraphNodeParams *any, struct context *ctx) {
    NEED(any);
    struct work work = {.type = (enum node_type)any->type};
    CUresult result;
    switch (work.type) {
    case NODE_KERNEL:
        work.kernel = any->kernel;
        break;
    case NODE_MEMCPY:
        work.copy = any->copy.copy;
        break;
    case NODE_MEMSET:
        work.fill = any->fill;
        break;
    case NODE_HOST:
        work.host = any->host;
        break;
    case NODE_GRAPH:
        return add_child(out, graph, after, count, any->child);
    case NODE_EMPTY:
        break;
    case NODE_WAIT_EVENT:
    case NODE_RECORD_EVENT:
        work.event = any->event;
        break;
    case NODE_ALLOC:
        work.alloc = any->alloc;
        result = add_memory(out, graph, after, count, &work, ctx);
        any->alloc.at = work.alloc.at;
        return result;
    case NODE_FREE:
        work.free = any->free;
        return add_memory(out, graph, after, count, &work, ctx);
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return add(out, graph, after, count, &work);
}

API(cuGraphAddNode, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, size_t count,
    CUgraphNodeParams *parameters) {
    ENTER_CONTEXT();
    return add_any(out, graph, after, count, parameters, ctx);
}

API(cuGraphAddNode_v2, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, UNUSED const void *edges,
    size_t count, CUgraphNodeParams *parameters) {
    ENTER_CONTEXT();
    return add_any(out, graph, after, count, parameters, ctx);
}

API(cuGraphAddNode_v3, CUgraphNode *out, CUgraph graph, const CUgraphNode *after, UNUSED const void *edges,
    size_t count, CUgraphNodeParams *parameters) {
    ENTER_CONTEXT();
    return add_any(out, graph, after, count, parameters, ctx);
}
