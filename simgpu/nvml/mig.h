// SPDX-License-Identifier: Apache-2.0
// What the MIG parts of the simulated NVML share: handles, which say themselves what they stand for, and may
// have become stale; profiles; who may do what.
#pragma once
#include "../state/mig.h"
#include "nvml.h"

typedef struct nvml_gpu_instance *nvmlGpuInstance_t;
typedef struct nvml_compute_instance *nvmlComputeInstance_t;

enum handle { MIG_DEVICE = 1, GPU_INSTANCE, COMPUTE_INSTANCE };

struct part {
    unsigned index;  // of its device, among the visible ones
    unsigned device; // its number in the state
    unsigned gi, ci;
};

struct placement {
    unsigned start, size;
};

#pragma GCC visibility push(hidden)
void *handle_for(enum handle kind, struct part part);
bool read_handle(enum handle kind, const void *handle, struct part *out); // false: no such, or gone
static inline struct part part_of(nvmlDevice_t device) {
    return (struct part){.index = index_of(device), .device = number_of(device)};
}
static inline struct sim_instance *instance_of(struct part part) {
    return sim_instance(&nvml.view, part.device, part.gi);
}
static inline struct sim_compute *compute_of(struct part part) {
    return sim_compute(&nvml.view, part.device, part.gi, part.ci);
}
struct sim_profile profile_of(struct part part); // that of its GPU instance

int mig_index(struct part part, unsigned *index); // among those of its device
int mig_name(struct part part, char *out, unsigned room);
int mig_uuid(struct part part, char *out, unsigned room);
nvmlDevice_t mig_called(const char *name); // NULL: none

static inline bool mig_enabled(unsigned device) {
    return atomic_load(&nvml.view.at->mig[device].current);
}
bool may_look(void); // at instances
bool may_see_all(unsigned device);
bool may_change(void); // instances, and the mode
// Remove what the handle stands for while nobody else changes instances.
int remove_alone(enum handle kind, void *handle, int (*remove_part)(struct part part));

bool profile_by_id(unsigned device, unsigned id, struct sim_profile *out);
// Whether a new instance of the profile can lie there, beside those that there are.
bool fits(unsigned device, const struct sim_profile *profile, unsigned start);

// The fixture of /proc/driver/nvidia/capabilities beside the state.
void capability_add(struct part part, bool compute);
void capability_remove(struct part part, bool compute);
#pragma GCC visibility pop

// For a device in MIG mode.
#define NEED_MIG(device)                                                                                     \
    do {                                                                                                     \
        NEED(is_device(device));                                                                             \
        if (!mig_enabled(number_of(device)))                                                                 \
            return NVML_NOT_SUPPORTED;                                                                       \
    } while (0)
#define NEED_PERMISSION(may)                                                                                 \
    do {                                                                                                     \
        if (!(may))                                                                                          \
            return NVML_NO_PERMISSION;                                                                       \
    } while (0)
#define NEED_PART(kind, handle, part)                                                                        \
    do {                                                                                                     \
        NEED(handle);                                                                                        \
        if (!read_handle(kind, handle, part))                                                                \
            return NVML_NOT_FOUND;                                                                           \
    } while (0)
// For a MIG device; a whole one has none of what it is asked for.
#define NEED_MIG_DEVICE(device, part)                                                                        \
    do {                                                                                                     \
        if (is_device(device))                                                                               \
            return NVML_NOT_SUPPORTED;                                                                       \
        NEED_PART(MIG_DEVICE, device, part);                                                                 \
    } while (0)
