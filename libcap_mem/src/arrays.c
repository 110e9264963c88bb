// SPDX-License-Identifier: Apache-2.0
/* CUDA arrays and mipmapped arrays. An array has no address, so small ones are not told apart by slab: their
 * sizes are added up, and the sum is charged in whole pages. What an array takes the driver says of a twin
 * without memory; one that doesn't is taken to pad as any that we know (sizes.c). */
#include "arrays.h"

#include "admit.h"
#include "contexts.h"
#include "devices.h"
#include "hooks.h"
#include "lock.h"
#include "raw.h"
#include "region.h"
#include "sizes.h"

struct own {
    struct gp_lock lock;
    uint64_t small[GP_MAX_GPUS];   /* bytes of small arrays */
    uint64_t charged[GP_MAX_GPUS]; /* for them */
};

static struct own *own(void) {
    static void *memory;
    return gp_own_memory(&memory, sizeof(struct own));
}

/* Bytes to be charged more (or, negative, given back) once the small arrays sum up to `change` more. */
static int64_t add_small(struct own *mine, int gpu, int64_t change) {
    gp_lock(&mine->lock);
    mine->small[gpu] += (uint64_t)change;
    uint64_t wanted = gp_round_up(mine->small[gpu], gp_page(gpu));
    int64_t difference = (int64_t)(wanted - mine->charged[gpu]);
    mine->charged[gpu] = wanted;
    gp_unlock(&mine->lock);
    return difference;
}

static int is_small(uint64_t bytes) {
    return bytes < GP_LARGE;
}

static void drop(int gpu, uint64_t bytes) {
    struct own *mine = own();
    if (gpu < 0 || !mine)
        return;
    int64_t change = is_small(bytes) ? add_small(mine, gpu, -(int64_t)bytes) : -(int64_t)bytes;
    if (change < 0)
        gp_give_back(gpu, (uint64_t)-change);
    else
        gp_count(gpu, (uint64_t)change);
}

/* What a refusal leaves behind in the sum is put right by drop(). */
static CUresult take(int gpu, uint64_t bytes, const char *api) {
    struct own *mine = own();
    if (gpu < 0 || !mine || !is_small(bytes))
        return gp_admit(gpu, bytes, api);
    int64_t change = add_small(mine, gpu, (int64_t)bytes);
    if (change <= 0) {
        gp_give_back(gpu, (uint64_t)-change);
        return CUDA_SUCCESS;
    }
    CUresult rc = gp_admit(gpu, (uint64_t)change, api);
    if (rc) {
        gp_count(gpu, (uint64_t)change);
        drop(gpu, bytes);
    }
    return rc;
}

void gp_array_gone(const struct gp_block *array) {
    drop(array->gpu, array->bytes);
}

struct hold {
    struct gp_place at;
    uint64_t bytes;
};

/* Bytes that an array takes, by a twin whose memory is to be given to it later. 0: the driver doesn't say. */
static uint64_t told_of_array(CUDA_ARRAY3D_DESCRIPTOR twin, CUdevice device) {
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {0};
    CUarray array;
    twin.flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (real_cuArray3DCreate_v2(&array, &twin))
        return 0;
    CUresult rc = real_cuArrayGetMemoryRequirements(&needs, array, device);
    real_cuArrayDestroy(array);
    return rc ? 0 : needs.bytes;
}

static uint64_t told_of_mipmap(CUDA_ARRAY3D_DESCRIPTOR twin, unsigned levels, CUdevice device) {
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs = {0};
    CUmipmappedArray array;
    twin.flags |= CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (real_cuMipmappedArrayCreate(&array, &twin, levels))
        return 0;
    CUresult rc = real_cuMipmappedArrayGetMemoryRequirements(&needs, array, device);
    real_cuMipmappedArrayDestroy(array);
    return rc ? 0 : needs.bytes;
}

/* 0 for one that takes none now (sparse, deferred). `levels`: 0 for a plain array. */
static uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned levels, int gpu) {
    uint64_t bound = gp_array_bytes(desc, levels ? levels : 1);
    if (!bound || bound >= GP_ENDLESS || gpu < 0)
        return bound;
    uint64_t told =
        levels ? told_of_mipmap(*desc, levels, gp_device_of(gpu)) : told_of_array(*desc, gp_device_of(gpu));
    return told && told < GP_ENDLESS ? told : bound;
}

static CUresult hold(struct hold *held, const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned levels,
                     const char *api) {
    CUresult rc = gp_here(&held->at);
    if (rc)
        return rc;
    uint64_t bytes = desc ? array_bytes(desc, levels, held->at.gpu) : 0;
    held->bytes = is_small(bytes) ? bytes : gp_round_up(bytes, gp_page(held->at.gpu));
    return held->bytes ? take(held->at.gpu, held->bytes, api) : CUDA_SUCCESS;
}

/* 1: the array exists and is remembered; 0: it does not, or must not. */
static int settle(CUresult rc, const struct hold *held, const void *array) {
    struct gp_block block = {.key = gp_key(GP_ARRAY, (uint64_t)array),
                             .bytes = held->bytes,
                             .other = (uint64_t)held->at.context,
                             .gpu = (uint8_t)held->at.gpu};
    if (!held->bytes || (!rc && gp_blocks_put(&block)))
        return 1;
    drop(held->at.gpu, held->bytes);
    return rc != CUDA_SUCCESS;
}

static CUresult create(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *desc,
                       CUresult (*driver)(CUarray *, const void *), const void *original) {
    struct hold held;
    CUresult rc = hold(&held, desc, 0, "cuArrayCreate");
    if (rc)
        return rc;
    rc = driver(array, original);
    if (settle(rc, &held, rc ? NULL : *array))
        return rc;
    real_cuArrayDestroy(*array);
    *array = NULL;
    return gp_refuse(held.at.gpu, held.bytes, "cuArrayCreate");
}

/* The four interfaces differ in their descriptor alone: each is brought into the widest form. */
#define CREATE(symbol, type, ...)                                                                            \
    static CUresult driver_##symbol(CUarray *array, const void *desc) {                                      \
        return real_##symbol(array, desc);                                                                   \
    }                                                                                                        \
    GP_EXPORT CUresult symbol(CUarray *array, const type *desc) {                                            \
        CUDA_ARRAY3D_DESCRIPTOR wide = {0};                                                                  \
        if (desc)                                                                                            \
            wide = (CUDA_ARRAY3D_DESCRIPTOR){.width = desc->width,                                           \
                                             .height = desc->height,                                         \
                                             .format = desc->format,                                         \
                                             .channels = desc->channels,                                     \
                                             __VA_ARGS__};                                                   \
        return create(array, desc ? &wide : NULL, driver_##symbol, desc);                                    \
    }

CREATE(cuArrayCreate, CUDA_ARRAY_DESCRIPTOR_v1, .depth = 0)
CREATE(cuArrayCreate_v2, CUDA_ARRAY_DESCRIPTOR, .depth = 0)
CREATE(cuArray3DCreate, CUDA_ARRAY3D_DESCRIPTOR_v1, .depth = desc->depth, .flags = desc->flags)
CREATE(cuArray3DCreate_v2, CUDA_ARRAY3D_DESCRIPTOR, .depth = desc->depth, .flags = desc->flags)

GP_EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *desc,
                                          unsigned levels) {
    struct hold held;
    CUresult rc = hold(&held, desc, levels, "cuMipmappedArrayCreate");
    if (rc)
        return rc;
    rc = real_cuMipmappedArrayCreate(array, desc, levels);
    if (settle(rc, &held, rc ? NULL : *array))
        return rc;
    real_cuMipmappedArrayDestroy(*array);
    *array = NULL;
    return gp_refuse(held.at.gpu, held.bytes, "cuMipmappedArrayCreate");
}

/* As with cuMemFree: the entry goes before the driver frees, the charge after. */
#define DESTROY(symbol, type)                                                                                \
    GP_EXPORT CUresult symbol(type array) {                                                                  \
        struct gp_block block;                                                                               \
        int ours = gp_blocks_take(gp_key(GP_ARRAY, (uint64_t)array), &block);                                \
        CUresult rc = real_##symbol(array);                                                                  \
        if (ours && rc)                                                                                      \
            gp_blocks_put(&block);                                                                           \
        else if (ours)                                                                                       \
            gp_array_gone(&block);                                                                           \
        return rc;                                                                                           \
    }

DESTROY(cuArrayDestroy, CUarray)
DESTROY(cuMipmappedArrayDestroy, CUmipmappedArray)
