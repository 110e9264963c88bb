// SPDX-License-Identifier: Apache-2.0
/* What can be done with the bytes of a page alone. The daemon uses it on copies of ledgers that a container
 * has written: any content gives an answer, none makes a read go astray. */
#include "kept.h"
#include "region.h"

#define GENERATIONS 0xffffffffffffull

uint64_t gp_policy_size(uint32_t version, uint32_t gpus) {
    if (version < GP_OLDEST_LAYOUT || version > GP_LAYOUT_VERSION || !gpus || gpus > GP_MAX_GPUS)
        return 0;
    return sizeof(gp_policy) + (version > 1 ? gpus * sizeof(gp_policy_cells) : 0);
}

uint64_t gp_ledger_size(uint32_t gpus) {
    return gpus && gpus <= GP_MAX_GPUS ? sizeof(gp_ledger_file) + (uint64_t)gpus * sizeof(gp_ledger_gpu) : 0;
}

int gp_ledger_format(gp_ledger_file *header, uint32_t gpus) {
    if (!gp_ledger_size(gpus))
        return -1;
    header->magic = GP_LEDGER_MAGIC;
    header->version = GP_LAYOUT_VERSION;
    header->gpus = gpus;
    header->cells = GP_CELLS;
    header->lanes = GP_LANES;
    return 0;
}

int gp_ledger_sound(const gp_ledger_file *copy, uint64_t bytes, uint32_t gpus) {
    return gp_ledger_size(gpus) && bytes >= gp_ledger_size(gpus) && copy->magic == GP_LEDGER_MAGIC &&
           copy->version >= GP_OLDEST_LAYOUT && copy->version <= GP_LAYOUT_VERSION && copy->gpus == gpus &&
           copy->cells == GP_CELLS && copy->lanes == GP_LANES;
}

/* The change that the total's tag names counts already, even if its lane does not say so yet: see total.c.
 * What a lane keeps, or has been drained of, is in nobody's use. */
static uint64_t lane_bytes(const gp_ledger_gpu *gpu, uint32_t cell, uint32_t lane) {
    const gp_lane *at = &gpu->lane[cell][lane];
    uint64_t next = (at->done + 1) & GENERATIONS;
    uint64_t unsettled = next << 16 | (uint64_t)cell << 8 | lane;
    uint64_t change = gpu->total.tag == unsettled ? next : at->done;
    uint64_t held = at->held[change & 1], unused = gp_kept(at->kept) + gp_drained(at->kept, change);
    return held > unused ? held - unused : 0;
}

uint64_t gp_ledger_share(const gp_ledger_file *copy, uint32_t gpu, uint32_t cell) {
    const gp_ledger_gpu *block = &copy->gpu[gpu];
    uint64_t generation = copy->cell[cell].generation, sum = 0;
    if (generation > GENERATIONS || block->share[cell].voided >= generation ||
        block->total.tag == (generation << 16 | (uint64_t)cell << 8 | GP_VOID))
        return 0;
    for (uint32_t lane = 0; lane < GP_LANES; lane++)
        sum += lane_bytes(block, cell, lane);
    return sum >> 62 ? 0 : sum;
}

int gp_ledger_holding(const gp_ledger_file *copy, uint32_t gpu, uint32_t *cells) {
    int count = 0;
    for (uint32_t cell = 0; cell < GP_CELLS; cell++)
        if (gp_ledger_share(copy, gpu, cell))
            cells[count++] = cell;
    return count;
}
