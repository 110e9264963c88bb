// SPDX-License-Identifier: Apache-2.0
#ifndef GP_DEVICES_H
#define GP_DEVICES_H
#include "abi.h"

enum { GP_NO_GPU = -1 }; /* not one of the policy's */

/* The policy's entry for a device ordinal of this process, found by UUID; GP_NO_GPU for a stranger. */
int gp_gpu_of(CUdevice device);

/* The ordinal under which this process has met a GPU; 0 if it has not. */
CUdevice gp_device_of(int gpu);

/* The unit in which a GPU's memory is taken, as the driver tells; 2 MiB at least. */
uint64_t gp_page(int gpu);

#endif
