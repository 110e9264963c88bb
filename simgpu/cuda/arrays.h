// SPDX-License-Identifier: Apache-2.0
// Arrays: what one is, and how large. An array's rows lie one behind the other, unpadded, in host memory that
// no caller knows the address of; what its device is charged is the size that a tiled one would have.
#pragma once
#include "memory.h"

enum { ARRAY_LAYERED = 1, ARRAY_CUBEMAP = 4, ARRAY_SPARSE = 0x40, ARRAY_DEFERRED = 0x80 };

typedef struct {
    size_t width, height, depth;
    int format;
    unsigned channels, flags;
} CUDA_ARRAY3D_DESCRIPTOR;

// How the elements of a format lie: planes of blocks of texels. Chroma planes follow the first one.
struct layout {
    unsigned bytes;        // of a block of the first plane
    unsigned texels;       // a block's width and height
    unsigned planes;       // 1, or those of video formats
    unsigned chroma_bytes; // of an element of a further plane ...
    unsigned across, down; // ... and how many texels share it
};

struct extent {
    size_t row, rows, slices; // bytes of a row; rows; planes of the third dimension
};

typedef struct array {
    uint32_t magic;
    struct block *block; // shared by a mipmap's levels and an array's planes; NULL: sparse or deferred
    uint64_t block_id;   // tells whether the block is still this one
    struct array *owner; // of a level or a plane: whose memory it is
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    struct extent extent;
    uintptr_t at;
    int device;
    unsigned levels; // of a mipmapped array
    struct array **level;
} *CUarray, *CUmipmappedArray;

#pragma GCC visibility push(hidden)
// array_sizes.c
bool layout_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, struct layout *layout);
struct extent extent_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, const struct layout *layout,
                        unsigned plane);
CUDA_ARRAY3D_DESCRIPTOR level_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned level);
uint64_t bytes_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor); // unpadded, all planes; 0: too large
uint64_t padded_bytes_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);
unsigned most_levels(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);

// arrays.c
bool array_is(const struct array *array, bool mipmapped); // and is there still
bool array_has_memory(const struct array *array);
CUresult array_create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, struct context *ctx);
CUresult array_describe(CUDA_ARRAY3D_DESCRIPTOR *out, const struct array *array);
#pragma GCC visibility pop
