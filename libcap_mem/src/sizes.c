// SPDX-License-Identifier: Apache-2.0
/* How much memory the driver takes for what it is asked: bounds from above, for where it cannot be asked.
 * Arithmetic alone. docs/libcap_mem.md states the margins. */
#include "sizes.h"

enum {
    ARRAY_ROW = 512, /* bytes to which a row of an array is padded */
    ARRAY_ROWS = 16, /* rows to which a plane is padded: arrays are stored in tiles */
    ARRAY_PAGE = 64 << 10,
};

uint64_t gp_times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) || product > GP_ENDLESS ? GP_ENDLESS : product;
}

/* Bytes of one element. Formats that are not listed (planar video, packed YUV, block-compressed: 16 bytes at
 * most for a 4 × 4 block) are counted with 8: no format takes more for an element unless its channels do. */
static uint64_t element_bytes(int format, unsigned channels) {
    static const uint8_t channel_bytes[] = {[0x01] = 1, [0x02] = 2, [0x03] = 4, [0x08] = 1, [0x09] = 2,
                                            [0x0a] = 4, [0x10] = 2, [0x20] = 4, [0x50] = 4};
    unsigned known = format > 0 && (size_t)format < sizeof channel_bytes ? channel_bytes[format] : 0;
    return known ? (uint64_t)known * (channels ? channels : 1) : 8;
}

static uint64_t level_bytes(uint64_t element, uint64_t width, uint64_t height, uint64_t depth) {
    uint64_t row = gp_round_up(gp_times(width ? width : 1, element), ARRAY_ROW);
    uint64_t rows = height > 1 ? gp_round_up(height, ARRAY_ROWS) : 1;
    return gp_times(gp_times(row, rows), depth ? depth : 1);
}

uint64_t gp_array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *desc, unsigned levels) {
    if (desc->flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING))
        return 0;
    uint64_t element = element_bytes(desc->format, desc->channels), sum = 0;
    for (unsigned level = 0; level < levels && level < 32; level++) {
        sum += level_bytes(element, desc->width >> level, desc->height >> level, desc->depth);
        if (sum >= GP_ENDLESS)
            return GP_ENDLESS;
    }
    return gp_round_up(sum, ARRAY_PAGE);
}
