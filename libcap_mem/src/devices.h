// SPDX-License-Identifier: Apache-2.0
#ifndef GP_DEVICES_H
#define GP_DEVICES_H
#include "abi.h"
#include "region.h"
#include "sizes.h"

enum { GP_NO_GPU = -1 }; /* not one of the policy's */

/* The policy's entry for a device ordinal of this process, found by UUID; GP_NO_GPU for a stranger. */
int gp_gpu_of(CUdevice device);

/* The ordinal under which this process has met a GPU; 0 if it has not. */
CUdevice gp_device_of(int gpu);

/* What is known of the devices that were met; a child may see others. For gp_page, which is no call. */
enum { GP_ORDINALS = 64 };
struct gp_ordinals {
    uint8_t known[GP_ORDINALS]; /* index into the policy plus 2; 0: not looked up yet; 1: a stranger */
    uint64_t page[GP_MAX_GPUS];
};
extern void *gp_ordinals __attribute__((visibility("hidden")));

/* The unit in which a GPU's memory is taken, as the driver tells; 2 MiB at least. */
static inline uint64_t gp_page(int gpu) {
    const struct gp_ordinals *known = __atomic_load_n(&gp_ordinals, __ATOMIC_ACQUIRE);
    uint64_t bytes = known && gpu >= 0 ? __atomic_load_n(&known->page[gpu], __ATOMIC_RELAXED) : 0;
    return bytes ? bytes : GP_PAGE;
}

#endif
