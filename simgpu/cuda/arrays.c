// SPDX-License-Identifier: Apache-2.0
// Arrays and mipmapped arrays: made, described, ended. Sparse and deferred ones have no memory: mapping some
// into them is not simulated.
#include "arrays.h"
#include <stdlib.h>

enum { ARRAY_MAGIC = 0x41525259, MIPMAP_MAGIC = 0x4d495053, ALIGNMENT = 65536 };

typedef struct {
    size_t width, height;
    int format;
    unsigned channels;
} CUDA_ARRAY_DESCRIPTOR;

typedef struct {
    size_t size, alignment;
    unsigned reserved[4];
} CUDA_ARRAY_MEMORY_REQUIREMENTS;

// An array whose context has ended has lost its block, which may be another's by now.
static bool is(const struct array *array, uint32_t magic) {
    return array && array->magic == magic &&
           (!array->block || (array->block->kind == KIND_ARRAY && array->block->id == array->block_id));
}

bool array_is(const struct array *array, bool mipmapped) {
    return is(array, mipmapped ? MIPMAP_MAGIC : ARRAY_MAGIC);
}

bool array_has_memory(const struct array *array) {
    return is(array, ARRAY_MAGIC) && array->block;
}

#define NEED_ARRAY(array)                                                                                    \
    do {                                                                                                     \
        if (!is(array, ARRAY_MAGIC))                                                                         \
            return CUDA_ERROR_INVALID_HANDLE;                                                                \
    } while (0)
#define NEED_MIPMAP(mipmap)                                                                                  \
    do {                                                                                                     \
        if (!is(mipmap, MIPMAP_MAGIC))                                                                       \
            return CUDA_ERROR_INVALID_HANDLE;                                                                \
    } while (0)

static bool sound(const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    struct layout layout;
    bool cube = descriptor->flags & ARRAY_CUBEMAP;
    return descriptor->width && layout_of(descriptor, &layout) &&
           (descriptor->height || !descriptor->depth || (descriptor->flags & ARRAY_LAYERED)) &&
           !(cube && descriptor->depth % 6);
}

static bool has_memory_at_once(const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    return !(descriptor->flags & (ARRAY_SPARSE | ARRAY_DEFERRED));
}

static CUresult get_memory(struct array *array, uint64_t bytes, uint64_t padded, struct context *ctx) {
    struct request request = {bytes, round_up(padded, driver.costs.array), KIND_ARRAY, REACH_ALL, ctx};
    if (!bytes || !padded)
        return CUDA_ERROR_OUT_OF_MEMORY;
    lock_acquire(&driver.lock);
    CUresult result = memory_make(&array->block, request);
    lock_release(&driver.lock);
    if (!result) {
        array->at = array->block->base;
        array->block_id = array->block->id;
    }
    return result;
}

static struct array *object(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, uint32_t magic, int device) {
    struct layout layout;
    struct array *array = calloc(1, sizeof *array);
    if (!array || !layout_of(descriptor, &layout)) {
        free(array);
        return NULL;
    }
    *array = (struct array){.magic = magic, .descriptor = *descriptor, .device = device};
    array->extent = extent_of(descriptor, &layout, 0);
    return array;
}

CUresult array_create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, struct context *ctx) {
    NEED(out && sound(descriptor));
    struct array *array = object(descriptor, ARRAY_MAGIC, ctx->device);
    CUresult result = array ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    if (!result && has_memory_at_once(descriptor))
        result = get_memory(array, bytes_of(descriptor), padded_bytes_of(descriptor), ctx);
    if (result)
        free(array);
    else
        *out = array;
    return result;
}

API(cuArrayCreate_v2, CUarray *out, const CUDA_ARRAY_DESCRIPTOR *flat) {
    ENTER_CONTEXT();
    NEED(flat);
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {flat->width, flat->height, 0, flat->format, flat->channels, 0};
    return array_create(out, &descriptor, ctx);
}

API(cuArray3DCreate_v2, CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    ENTER_CONTEXT();
    NEED(descriptor);
    return array_create(out, descriptor, ctx);
}

static void drop_memory(struct array *array) {
    lock_acquire(&driver.lock);
    if (array->block && !array->owner)
        memory_drop(array->block);
    array->magic = 0; // the object stays: a stale handle is told, not followed
    lock_release(&driver.lock);
}

API(cuArrayDestroy, CUarray array) {
    ENTER();
    NEED_ARRAY(array);
    NEED(!array->owner);
    drop_memory(array);
    return CUDA_SUCCESS;
}

CUresult array_describe(CUDA_ARRAY3D_DESCRIPTOR *out, const struct array *array) {
    NEED_ARRAY(array);
    *out = array->descriptor;
    return CUDA_SUCCESS;
}

API(cuArrayGetDescriptor_v2, CUDA_ARRAY_DESCRIPTOR *out, CUarray array) {
    ENTER_CONTEXT();
    NEED_ARRAY(array);
    NEED(out);
    const CUDA_ARRAY3D_DESCRIPTOR *of = &array->descriptor;
    *out = (CUDA_ARRAY_DESCRIPTOR){of->width, of->height, of->format, of->channels};
    return CUDA_SUCCESS;
}

API(cuArray3DGetDescriptor_v2, CUDA_ARRAY3D_DESCRIPTOR *out, CUarray array) {
    ENTER_CONTEXT();
    NEED(out);
    return array_describe(out, array);
}

// Only of those whose memory is mapped later: so says the driver's documentation.
static CUresult requirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *out, const struct array *array, uint64_t padded,
                             CUdevice device) {
    NEED_DEVICE(device);
    NEED(out && device == array->device && array->descriptor.flags & ARRAY_DEFERRED);
    *out = (CUDA_ARRAY_MEMORY_REQUIREMENTS){round_up(padded, driver.costs.array), ALIGNMENT};
    return CUDA_SUCCESS;
}

API(cuArrayGetMemoryRequirements, CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUarray array, CUdevice device) {
    ENTER();
    NEED_ARRAY(array);
    return requirements(out, array, padded_bytes_of(&array->descriptor), device);
}

// ------- planes of video formats

API(cuArrayGetPlane, CUarray *out, CUarray array, unsigned plane) {
    ENTER_CONTEXT();
    NEED_ARRAY(array);
    struct layout layout;
    NEED(out && layout_of(&array->descriptor, &layout) && layout.planes > 1 && plane < layout.planes);
    struct extent extent = extent_of(&array->descriptor, &layout, plane);
    unsigned width = layout.bytes, bytes = plane ? layout.chroma_bytes : layout.bytes;
    CUDA_ARRAY3D_DESCRIPTOR flat = {extent.row / bytes, extent.rows, 0, (int)width, bytes / width, 0};
    struct array *part = object(&flat, ARRAY_MAGIC, array->device);
    if (!part)
        return CUDA_ERROR_OUT_OF_MEMORY;
    part->owner = array;
    part->block = array->block;
    part->block_id = array->block_id;
    part->at = array->at;
    for (unsigned before = 0; before < plane; before++) {
        struct extent other = extent_of(&array->descriptor, &layout, before);
        part->at += other.row * other.rows;
    }
    *out = part;
    return CUDA_SUCCESS;
}

// ------- mipmapped arrays

static struct array *make_level(struct array *mipmap, unsigned n, uintptr_t *at) {
    CUDA_ARRAY3D_DESCRIPTOR descriptor = level_of(&mipmap->descriptor, n);
    struct array *level = object(&descriptor, ARRAY_MAGIC, mipmap->device);
    if (!level)
        return NULL;
    level->owner = mipmap;
    level->block = mipmap->block;
    level->block_id = mipmap->block_id;
    level->at = *at;
    *at += bytes_of(&descriptor);
    return level;
}

static void measure(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels, uint64_t *bytes,
                    uint64_t *padded) {
    *bytes = *padded = 0;
    for (unsigned n = 0; n < levels; n++) {
        CUDA_ARRAY3D_DESCRIPTOR level = level_of(descriptor, n);
        *bytes += bytes_of(&level);
        *padded += padded_bytes_of(&level);
        if (!bytes_of(&level) || *padded > (uint64_t)1 << 48) {
            *bytes = *padded = 0; // too large
            return;
        }
    }
}

static void mipmap_free(struct array *mipmap) {
    for (unsigned n = 0; mipmap->level && n < mipmap->levels; n++)
        if (mipmap->level[n])
            mipmap->level[n]->magic = 0;
    drop_memory(mipmap);
}

static CUresult make_levels(struct array *mipmap, unsigned levels, struct context *ctx) {
    uint64_t bytes, padded;
    mipmap->level = calloc(levels, sizeof(struct array *));
    measure(&mipmap->descriptor, levels, &bytes, &padded);
    if (!mipmap->level)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (has_memory_at_once(&mipmap->descriptor)) {
        CUresult result = get_memory(mipmap, bytes, padded, ctx);
        if (result)
            return result;
    }
    uintptr_t at = mipmap->at;
    for (mipmap->levels = 0; mipmap->levels < levels; mipmap->levels++)
        if (!(mipmap->level[mipmap->levels] = make_level(mipmap, mipmap->levels, &at)))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

API(cuMipmappedArrayCreate, CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
    unsigned levels) {
    ENTER_CONTEXT();
    NEED(out && descriptor && levels && sound(descriptor));
    unsigned most = most_levels(descriptor);
    struct array *mipmap = object(descriptor, MIPMAP_MAGIC, ctx->device);
    if (!mipmap)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = make_levels(mipmap, levels < most ? levels : most, ctx);
    if (result)
        mipmap_free(mipmap);
    else
        *out = mipmap;
    return result;
}

API(cuMipmappedArrayDestroy, CUmipmappedArray mipmap) {
    ENTER();
    NEED_MIPMAP(mipmap);
    mipmap_free(mipmap);
    return CUDA_SUCCESS;
}

API(cuMipmappedArrayGetLevel, CUarray *out, CUmipmappedArray mipmap, unsigned level) {
    ENTER_CONTEXT();
    NEED_MIPMAP(mipmap);
    NEED(out && level < mipmap->levels);
    *out = mipmap->level[level];
    return CUDA_SUCCESS;
}

API(cuMipmappedArrayGetMemoryRequirements, CUDA_ARRAY_MEMORY_REQUIREMENTS *out, CUmipmappedArray mipmap,
    CUdevice device) {
    ENTER();
    NEED_MIPMAP(mipmap);
    uint64_t bytes, padded;
    measure(&mipmap->descriptor, mipmap->levels, &bytes, &padded);
    return requirements(out, mipmap, padded, device);
}
