// SPDX-License-Identifier: Apache-2.0
// How large an array is: by its format, its extents and the padding that the settings say. Arithmetic alone.
#include "arrays.h"

#define TOO_LARGE ((uint64_t)1 << 48)

// By format: bytes of a channel of those that have 1 to 4 channels.
static const unsigned char channel_bytes[0x21] = {
    [0x01] = 1, [0x02] = 2, [0x03] = 4, [0x08] = 1, [0x09] = 2, [0x0a] = 4, [0x10] = 2, [0x20] = 4,
};

// The others name their channels themselves.
static const struct layout whole[0xcc] = {
    [0x50] = {4, 1, 1},          // 10, 10, 10 and 2 bits
    [0x91] = {8, 4, 1},          // BC1
    [0x92] = {8, 4, 1},          // ...
    [0x93] = {16, 4, 1},         // BC2
    [0x94] = {16, 4, 1},         // ...
    [0x95] = {16, 4, 1},         // BC3
    [0x96] = {16, 4, 1},         // ...
    [0x97] = {8, 4, 1},          // BC4
    [0x98] = {8, 4, 1},          // ...
    [0x99] = {16, 4, 1},         // BC5
    [0x9a] = {16, 4, 1},         // ...
    [0x9b] = {16, 4, 1},         // BC6H
    [0x9c] = {16, 4, 1},         // ...
    [0x9d] = {16, 4, 1},         // BC7
    [0x9e] = {16, 4, 1},         // ...
    [0x9f] = {2, 1, 2, 4, 2, 2}, // P010
    [0xa1] = {2, 1, 2, 4, 2, 2}, // P016
    [0xa2] = {1, 1, 2, 2, 2, 1}, // NV16
    [0xa3] = {2, 1, 2, 4, 2, 1}, // P210
    [0xa4] = {2, 1, 2, 4, 2, 1}, // P216
    [0xa5] = {2, 1, 1},          // YUY2
    [0xa6] = {4, 1, 1},          // Y210
    [0xa7] = {4, 1, 1},          // Y216
    [0xa8] = {4, 1, 1},          // AYUV
    [0xa9] = {4, 1, 1},          // Y410
    [0xb0] = {1, 1, 2, 2, 2, 2}, // NV12
    [0xb1] = {8, 1, 1},          // Y416
    [0xb2] = {1, 1, 3, 1, 1, 1}, // Y444, planes of 8 bits
    [0xb3] = {2, 1, 3, 2, 1, 1}, // ... of 10
    [0xb4] = {1, 1, 2, 2, 1, 1}, // YUV444, two planes of 8 bits
    [0xb5] = {2, 1, 2, 4, 1, 1}, // ... of 16
    [0xc0] = {1, 1, 1},          // normalized integers: 8 bits, 1 channel
    [0xc1] = {2, 1, 1},          // ... 2
    [0xc2] = {4, 1, 1},          // ... 4
    [0xc3] = {2, 1, 1},          // 16 bits
    [0xc4] = {4, 1, 1},          // ...
    [0xc5] = {8, 1, 1},          // ...
    [0xc6] = {1, 1, 1},          // the same, signed
    [0xc7] = {2, 1, 1},          // ...
    [0xc8] = {4, 1, 1},          // ...
    [0xc9] = {2, 1, 1},          // ...
    [0xca] = {4, 1, 1},          // ...
    [0xcb] = {8, 1, 1},          // ...
};

bool layout_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, struct layout *layout) {
    int format = descriptor->format;
    unsigned channels = descriptor->channels;
    if (format <= 0 || (size_t)format >= sizeof whole / sizeof *whole)
        return false;
    *layout = whole[format];
    if (layout->bytes)
        return channels >= 1 && channels <= 4;
    unsigned each = (size_t)format < sizeof channel_bytes ? channel_bytes[format] : 0;
    *layout = (struct layout){each * channels, 1, 1};
    return each && (channels == 1 || channels == 2 || channels == 4);
}

static size_t parts(size_t whole_size, unsigned of) {
    size_t size = whole_size ? whole_size : 1;
    return size / of + (size % of != 0);
}

struct extent extent_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, const struct layout *layout,
                        unsigned plane) {
    unsigned across = plane ? layout->across : layout->texels, down = plane ? layout->down : layout->texels;
    unsigned bytes = plane ? layout->chroma_bytes : layout->bytes;
    return (struct extent){parts(descriptor->width, across) * bytes, parts(descriptor->height, down),
                           descriptor->depth ? descriptor->depth : 1};
}

CUDA_ARRAY3D_DESCRIPTOR level_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned level) {
    CUDA_ARRAY3D_DESCRIPTOR small = *descriptor;
    bool layers = descriptor->flags & (ARRAY_LAYERED | ARRAY_CUBEMAP);
    small.width = parts(small.width >> level, 1);
    small.height = small.height ? parts(small.height >> level, 1) : 0;
    if (small.depth && !layers)
        small.depth = parts(small.depth >> level, 1);
    return small;
}

unsigned most_levels(const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    bool layers = descriptor->flags & (ARRAY_LAYERED | ARRAY_CUBEMAP);
    size_t longest = descriptor->width > descriptor->height ? descriptor->width : descriptor->height;
    if (!layers && descriptor->depth > longest)
        longest = descriptor->depth;
    unsigned levels = 1;
    while (longest >>= 1)
        levels++;
    return levels;
}

static uint64_t sum(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, uint64_t row_step, uint64_t rows_step) {
    struct layout layout;
    uint64_t all = 0, bytes;
    if (!layout_of(descriptor, &layout) || descriptor->width > TOO_LARGE || descriptor->height > TOO_LARGE)
        return 0;
    for (unsigned plane = 0; plane < layout.planes; plane++) {
        struct extent extent = extent_of(descriptor, &layout, plane);
        uint64_t rows = extent.rows > 1 ? round_up(extent.rows, rows_step) : 1;
        if (__builtin_mul_overflow(round_up(extent.row, row_step), rows, &bytes) ||
            __builtin_mul_overflow(bytes, extent.slices, &bytes) || bytes > TOO_LARGE)
            return 0;
        all += bytes;
    }
    return all;
}

uint64_t bytes_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    return sum(descriptor, 1, 1);
}

uint64_t padded_bytes_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor) {
    return sum(descriptor, driver.costs.array_row, driver.costs.array_rows);
}
