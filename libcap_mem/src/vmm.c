// SPDX-License-Identifier: Apache-2.0
/* Physical memory by handle (cuMemCreate) and its mappings. The driver keeps it until the last handle, the
 * last mapping and the last export are gone; so does the charge. When an exported descriptor is closed cannot
 * be seen: what was exported stays charged until the process ends. What is imported belongs to whoever
 * exported it. */
#include "vmm.h"
#include "admit.h"
#include "blocks.h"
#include "devices.h"
#include "hooks.h"
#include "sizes.h"

/* Handles can be reused while the memory of the old one is still mapped: physical memory has numbers of our
 * own. */
static uint64_t number(void) {
    static uint64_t last;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

void gp_physical_leave(uint64_t physical) {
    struct gp_block was;
    if (!physical || !gp_blocks_leave(gp_key(GP_PHYSICAL, physical), &was) || was.refs != 1)
        return;
    if (was.how == GP_MULTICAST)
        gp_multicast_gone(physical);
    else
        gp_give_back(was.gpu, was.bytes);
}

int gp_physical_join(uint64_t physical) {
    struct gp_block block;
    return physical && gp_blocks_see(gp_key(GP_PHYSICAL, physical), &block) && gp_blocks_join(&block);
}

uint64_t gp_physical_of(CUmemHandle handle) {
    struct gp_block block;
    return gp_blocks_see(gp_key(GP_HANDLE, handle), &block) ? block.other : 0;
}

void gp_physical_of_multicast(CUmemHandle handle) {
    uint64_t physical = number();
    struct gp_block object = {.key = gp_key(GP_PHYSICAL, physical), .how = GP_MULTICAST};
    struct gp_block named = {.key = gp_key(GP_HANDLE, handle), .other = physical};
    if (gp_blocks_join(&object))
        gp_blocks_join(&named);
}

static CUresult remember(CUmemHandle handle, int gpu, uint64_t bytes) {
    uint64_t physical = number();
    struct gp_block memory = {.key = gp_key(GP_PHYSICAL, physical), .bytes = bytes, .gpu = (uint8_t)gpu};
    struct gp_block named = {.key = gp_key(GP_HANDLE, handle), .other = physical};
    if (gp_blocks_join(&memory) && gp_blocks_join(&named))
        return CUDA_SUCCESS;
    real_cuMemRelease(handle);
    gp_give_back(gpu, bytes);
    return gp_refuse(gpu, bytes, "cuMemCreate");
}

GP_EXPORT CUresult cuMemCreate(CUmemHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                               unsigned long long flags) {
    int count;
    if (!prop || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE || real_cuDeviceGetCount(&count) ||
        prop->location.id < 0 || prop->location.id >= count)
        return real_cuMemCreate(handle, bytes, prop, flags);
    int gpu = gp_gpu_of(prop->location.id);
    uint64_t hold = gp_round_up(bytes, gp_page(gpu));
    CUresult rc = gp_admit(gpu, hold, "cuMemCreate");
    if (rc)
        return rc;
    rc = real_cuMemCreate(handle, bytes, prop, flags);
    if (rc) {
        gp_give_back(gpu, hold);
        return rc;
    }
    rc = remember(*handle, gpu, hold);
    if (rc)
        *handle = 0;
    return rc;
}

/* The entry goes first: the driver may give the handle to another thread at once. */
GP_EXPORT CUresult cuMemRelease(CUmemHandle handle) {
    struct gp_block was;
    int ours = gp_blocks_leave(gp_key(GP_HANDLE, handle), &was);
    CUresult rc = real_cuMemRelease(handle);
    if (ours && rc)
        gp_blocks_join(&was);
    else if (ours)
        gp_physical_leave(was.other);
    return rc;
}

GP_EXPORT CUresult cuMemMap(CUdeviceptr dptr, size_t bytes, size_t offset, CUmemHandle handle,
                            unsigned long long flags) {
    uint64_t physical = gp_physical_of(handle);
    int joined = gp_physical_join(physical);
    struct gp_block mapping = {
        .key = gp_key(GP_MAPPING, dptr), .bytes = bytes, .other = joined ? physical : 0};
    CUresult rc = real_cuMemMap(dptr, bytes, offset, handle, flags);
    /* A mapping that there is no memory to remember keeps its charge for good: more is counted, never less.
     */
    if (!rc)
        gp_blocks_put(&mapping);
    else if (joined)
        gp_physical_leave(physical);
    return rc;
}

/* One call can end several mappings, which lie side by side. */
GP_EXPORT CUresult cuMemUnmap(CUdeviceptr dptr, size_t bytes) {
    CUresult rc = real_cuMemUnmap(dptr, bytes);
    struct gp_block mapping;
    for (uint64_t at = dptr; !rc && at < dptr + bytes && gp_blocks_take(gp_key(GP_MAPPING, at), &mapping);) {
        gp_physical_leave(mapping.other);
        at += mapping.bytes;
    }
    return rc;
}

/* Mappings begin at multiples of the driver's granularity. */
uint64_t gp_physical_at(uint64_t address) {
    enum { GRANULARITY = 64 << 10, FARTHEST = 1 << 20 };
    struct gp_block mapping;
    uint64_t at = address - address % GRANULARITY;
    for (unsigned steps = 0; at && steps < FARTHEST; steps++, at -= GRANULARITY)
        if (gp_blocks_see(gp_key(GP_MAPPING, at), &mapping))
            return address < at + mapping.bytes ? mapping.other : 0;
    return 0;
}

GP_EXPORT CUresult cuMemRetainAllocationHandle(CUmemHandle *handle, void *address) {
    CUresult rc = real_cuMemRetainAllocationHandle(handle, address);
    if (rc)
        return rc;
    uint64_t physical = gp_physical_of(*handle);
    if (!physical)
        physical = gp_physical_at((uint64_t)address);
    struct gp_block named = {.key = gp_key(GP_HANDLE, *handle), .other = physical};
    if (gp_physical_join(physical))
        gp_blocks_join(&named);
    return rc;
}

GP_EXPORT CUresult cuMemExportToShareableHandle(void *shareable, CUmemHandle handle, int type,
                                                unsigned long long flags) {
    CUresult rc = real_cuMemExportToShareableHandle(shareable, handle, type, flags);
    if (!rc)
        gp_physical_join(gp_physical_of(handle));
    return rc;
}

/* Tiles of a sparse array keep the memory as mappings do. Which of them an unmapping ends is not followed:
 * memory that was ever mapped into an array stays charged until the process ends. */
static CUresult mapped(CUresult rc, const CUarrayMapInfo *list, unsigned count) {
    for (unsigned i = 0; !rc && i < count; i++)
        if (list[i].operation == CU_MEM_OPERATION_TYPE_MAP)
            gp_physical_join(gp_physical_of(list[i].handle));
    return rc;
}

GP_EXPORT CUresult cuMemMapArrayAsync(CUarrayMapInfo *list, unsigned count, CUstream stream) {
    return mapped(real_cuMemMapArrayAsync(list, count, stream), list, count);
}
GP_EXPORT CUresult cuMemMapArrayAsync_ptsz(CUarrayMapInfo *list, unsigned count, CUstream stream) {
    return mapped(real_cuMemMapArrayAsync_ptsz(list, count, stream), list, count);
}
