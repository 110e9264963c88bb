// SPDX-License-Identifier: Apache-2.0
// MIG mode, and who may change what. Boards before Hopper change it with a reset (or do one of themselves,
// where the setting says so); later ones at once. What is open or made stands in the way.
#include "mig.h"
#include <unistd.h>

// On the host root may do all, and everybody look; in a container the capabilities' nodes say.
bool may_change(void) {
    return nvml.view.container ? sim_cap_open(SIM_CAP_CONFIG) : !geteuid();
}

bool may_look(void) {
    return !nvml.view.container || sim_cap_open(SIM_CAP_MONITOR) || may_change();
}

// What all of a board's instances hold together, and who: no business of a process that has but one of them.
bool may_see_all(unsigned device) {
    return !mig_enabled(device) || may_look();
}

int remove_alone(enum handle kind, void *handle, int (*remove_part)(struct part part)) {
    struct part part;
    NEED_PART(kind, handle, &part);
    NEED_PERMISSION(may_change());
    int lock = sim_mig_lock(&nvml.view);
    if (lock < 0)
        return NVML_UNKNOWN;
    // Looked up again with the lock held: another may have been first.
    int result = read_handle(kind, handle, &part) ? remove_part(part) : NVML_NOT_FOUND;
    close(lock);
    return result;
}

API(nvmlDeviceGetMigMode, nvmlDevice_t device, unsigned *current, unsigned *pending) {
    ENTER();
    if (is_mig_device(device))
        return NVML_NOT_SUPPORTED;
    NEED(is_device(device) && current && pending);
    if (!sim_has_mig(&nvml.view, number_of(device)))
        return NVML_NOT_SUPPORTED;
    const struct sim_mig *mig = &nvml.view.at->mig[number_of(device)];
    *current = (unsigned)atomic_load(&mig->current);
    *pending = (unsigned)atomic_load(&mig->pending);
    return NVML_SUCCESS;
}

static bool is_busy(unsigned device) {
    if (sim_in_use(&nvml.view, device))
        return true;
    for (unsigned gi = 0; gi < SIM_INSTANCES; gi++)
        if (atomic_load(&sim_instance(&nvml.view, device, gi)->serial))
            return true;
    return false;
}

static int set_mode(unsigned device, unsigned mode) {
    struct sim_mig *mig = &nvml.view.at->mig[device];
    bool resets = sim_number(&nvml.view, "board.%u.mig_resets", device);
    bool busy = is_busy(device);
    if (atomic_load(&mig->current) != mode && busy && !resets)
        return NVML_IN_USE;
    atomic_store(&mig->pending, mode);
    if (atomic_load(&mig->current) == mode)
        return NVML_SUCCESS;
    if (busy)
        return NVML_IN_USE; // pending, until a reset
    if (resets && !sim_number(&nvml.view, "self_reset", 0))
        return NVML_RESET_REQUIRED;
    atomic_store(&mig->current, mode);
    return NVML_SUCCESS;
}

// The call succeeds where the mode could be set at least for later; `activation` says whether it is.
API(nvmlDeviceSetMigMode, nvmlDevice_t device, unsigned mode, int *activation) {
    ENTER();
    NEED(is_device(device) && mode <= 1 && activation);
    if (!sim_has_mig(&nvml.view, number_of(device)))
        return NVML_NOT_SUPPORTED;
    NEED_PERMISSION(may_change());
    int lock = sim_mig_lock(&nvml.view);
    if (lock < 0)
        return NVML_UNKNOWN;
    *activation = set_mode(number_of(device), mode);
    close(lock);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetMaxMigDeviceCount, nvmlDevice_t device, unsigned *count) {
    struct sim_profile profile;
    ENTER();
    NEED(is_device(device) && count);
    *count = 0;
    for (unsigned row = 0; sim_has_mig(&nvml.view, number_of(device)) &&
                           sim_profile(&nvml.view, number_of(device), row, &profile);
         row++)
        *count = profile.most > *count ? profile.most : *count;
    return NVML_SUCCESS;
}
