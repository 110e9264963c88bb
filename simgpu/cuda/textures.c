// SPDX-License-Identifier: Apache-2.0
// Texture and surface objects: what was asked for is checked, kept and told again; no kernel ever reads
// through one. They cost the device nothing here, and belong to the context in which they were made.
#include "arrays.h"
#include <stdlib.h>
#include <string.h>

enum { RESOURCE_ARRAY = 0, RESOURCE_MIPMAP = 1, RESOURCE_LINEAR = 2, RESOURCE_PITCH2D = 3 };
enum { TEXTURE_MAGIC = 0x54455854, SURFACE_MAGIC = 0x53555246, ALIGNMENT = 512, PITCH_ALIGNMENT = 32 };
enum { MOST_LINEAR = 1 << 28, SURFACE_LDST = 2 };

// As CUDA's documentation has them; a description is as large as all that any kind of resource says of
// itself.
typedef struct {
    int type;
    union {
        struct array *array;
        struct {
            CUdeviceptr at;
            int format;
            unsigned channels;
            size_t size;
        } linear;
        struct {
            CUdeviceptr at;
            int format;
            unsigned channels;
            size_t width, height, pitch;
        } pitch2d;
        int reserved[32];
    };
    unsigned flags;
} CUDA_RESOURCE_DESC;

typedef struct {
    int address[3], filter;
    unsigned flags, anisotropy;
    int mipmap_filter;
    float mipmap_bias, mipmap_from, mipmap_to, border[4];
    int reserved[12];
} CUDA_TEXTURE_DESC;

typedef struct {
    int format;
    size_t width, height, depth;
    unsigned first_level, last_level, first_layer, last_layer, reserved[16];
} CUDA_RESOURCE_VIEW_DESC;

_Static_assert(sizeof(CUDA_RESOURCE_DESC) == 144, "as CUDA's");
_Static_assert(sizeof(CUDA_TEXTURE_DESC) == 104, "as CUDA's");
_Static_assert(sizeof(CUDA_RESOURCE_VIEW_DESC) == 112, "as CUDA's");

struct view {
    uint32_t magic;
    uint64_t context; // the id of its context
    CUDA_RESOURCE_DESC resource;
    CUDA_TEXTURE_DESC texture;
    CUDA_RESOURCE_VIEW_DESC part;
    bool has_part;
};

static unsigned element_bytes(int format, unsigned channels) {
    // 8, 16 and 32 bits: unsigned, signed; and the half and the float.
    static const unsigned char bytes[0x21] = {
        [0x01] = 1, [0x02] = 2, [0x03] = 4, [0x08] = 1, [0x09] = 2, [0x0a] = 4, [0x10] = 2, [0x20] = 4};
    bool known = format > 0 && format <= 0x20 && (channels == 1 || channels == 2 || channels == 4);
    return known ? bytes[format] * channels : 0;
}

// Memory of the device that is there now, from its beginning on as far as is asked.
static bool reaches(CUdeviceptr at, size_t size) {
    lock_acquire(&driver.lock);
    struct place place = place_find(at);
    lock_release(&driver.lock);
    return place.kind != KIND_FREE && size && size <= place.base + place.size - at;
}

static CUresult sound_linear(const CUDA_RESOURCE_DESC *asked) {
    unsigned element = element_bytes(asked->linear.format, asked->linear.channels);
    NEED(element && asked->linear.at % ALIGNMENT == 0 && asked->linear.size / element <= MOST_LINEAR);
    NEED(reaches(asked->linear.at, asked->linear.size));
    return CUDA_SUCCESS;
}

static CUresult sound_pitch2d(const CUDA_RESOURCE_DESC *asked) {
    unsigned element = element_bytes(asked->pitch2d.format, asked->pitch2d.channels);
    size_t width = asked->pitch2d.width, height = asked->pitch2d.height, pitch = asked->pitch2d.pitch;
    NEED(element && asked->pitch2d.at % ALIGNMENT == 0 && pitch % PITCH_ALIGNMENT == 0);
    NEED(width && height && width <= pitch / element && height <= SIZE_MAX / 2 / pitch);
    NEED(reaches(asked->pitch2d.at, pitch * (height - 1) + width * element));
    return CUDA_SUCCESS;
}

static CUresult sound_resource(const CUDA_RESOURCE_DESC *asked) {
    NEED(!asked->flags);
    switch (asked->type) {
    case RESOURCE_ARRAY:
    case RESOURCE_MIPMAP:
        return array_is(asked->array, asked->type == RESOURCE_MIPMAP) ? CUDA_SUCCESS
                                                                      : CUDA_ERROR_INVALID_HANDLE;
    case RESOURCE_LINEAR:
        return sound_linear(asked);
    case RESOURCE_PITCH2D:
        return sound_pitch2d(asked);
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult view_new(uint64_t *out, struct view made, struct context *ctx) {
    struct view *view = malloc(sizeof *view);
    if (!view)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made.context = ctx->id;
    *view = made;
    *out = (uintptr_t)view;
    return CUDA_SUCCESS;
}

// The object stays when it is destroyed: a stale handle is told, not followed.
static struct view *view_of(uint64_t handle, uint32_t magic, const struct context *ctx) {
    struct view *view = (struct view *)(uintptr_t)handle;
    return view && view->magic == magic && view->context == ctx->id ? view : NULL;
}

API(cuTexObjectCreate, uint64_t *out, const CUDA_RESOURCE_DESC *resource, const CUDA_TEXTURE_DESC *texture,
    const CUDA_RESOURCE_VIEW_DESC *part) {
    ENTER_CONTEXT();
    NEED(out && resource && texture);
    // Of what is not an array there are no parts.
    NEED(!part || resource->type == RESOURCE_ARRAY || resource->type == RESOURCE_MIPMAP);
    CUresult result = sound_resource(resource);
    if (result)
        return result;
    struct view view = {.magic = TEXTURE_MAGIC, .resource = *resource, .texture = *texture, .has_part = part};
    if (part)
        view.part = *part;
    return view_new(out, view, ctx);
}

API(cuTexObjectDestroy, uint64_t texture) {
    ENTER_CONTEXT();
    struct view *view = view_of(texture, TEXTURE_MAGIC, ctx);
    NEED(view);
    view->magic = 0;
    return CUDA_SUCCESS;
}

API(cuTexObjectGetResourceDesc, CUDA_RESOURCE_DESC *out, uint64_t texture) {
    ENTER_CONTEXT();
    struct view *view = view_of(texture, TEXTURE_MAGIC, ctx);
    NEED(out && view);
    *out = view->resource;
    return CUDA_SUCCESS;
}

API(cuTexObjectGetTextureDesc, CUDA_TEXTURE_DESC *out, uint64_t texture) {
    ENTER_CONTEXT();
    struct view *view = view_of(texture, TEXTURE_MAGIC, ctx);
    NEED(out && view);
    *out = view->texture;
    return CUDA_SUCCESS;
}

// An object that was made without a view has none.
API(cuTexObjectGetResourceViewDesc, CUDA_RESOURCE_VIEW_DESC *out, uint64_t texture) {
    ENTER_CONTEXT();
    struct view *view = view_of(texture, TEXTURE_MAGIC, ctx);
    NEED(out && view && view->has_part);
    *out = view->part;
    return CUDA_SUCCESS;
}

API(cuSurfObjectCreate, uint64_t *out, const CUDA_RESOURCE_DESC *resource) {
    ENTER_CONTEXT();
    NEED(out && resource && resource->type == RESOURCE_ARRAY);
    CUresult result = sound_resource(resource);
    if (result)
        return result;
    NEED(resource->array->descriptor.flags & SURFACE_LDST);
    return view_new(out, (struct view){.magic = SURFACE_MAGIC, .resource = *resource}, ctx);
}

API(cuSurfObjectDestroy, uint64_t surface) {
    ENTER_CONTEXT();
    struct view *view = view_of(surface, SURFACE_MAGIC, ctx);
    NEED(view);
    view->magic = 0;
    return CUDA_SUCCESS;
}

API(cuSurfObjectGetResourceDesc, CUDA_RESOURCE_DESC *out, uint64_t surface) {
    ENTER_CONTEXT();
    struct view *view = view_of(surface, SURFACE_MAGIC, ctx);
    NEED(out && view);
    *out = view->resource;
    return CUDA_SUCCESS;
}
