// SPDX-License-Identifier: Apache-2.0
// Who holds memory of a device, for those who list something by process.
#pragma once
#include "nvml.h"

struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

#pragma GCC visibility push(hidden)
// To be freed; how many there are. What a device's instances hold is the device's too.
struct process *nvml_holders(nvmlDevice_t device, unsigned *n);
#pragma GCC visibility pop
