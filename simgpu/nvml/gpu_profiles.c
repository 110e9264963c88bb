// SPDX-License-Identifier: Apache-2.0
// What GPU instances a board offers, where they can lie, and what fits beside what is there.
#include "mig.h"
#include <stdio.h>

enum { FIRST_WITH_LISTING = 550 }; // earlier drivers list profiles in MIG mode only

bool profile_by_id(unsigned device, unsigned id, struct sim_profile *out) {
    for (unsigned row = 0; sim_profile(&nvml.view, device, row, out); row++)
        if (out->id == id && out->driver <= sim_driver(&nvml.view))
            return true;
    return false;
}

static bool profile_by_index(unsigned device, unsigned index, struct sim_profile *out) {
    for (unsigned row = 0; sim_profile(&nvml.view, device, row, out); row++)
        if (out->index == index && out->driver <= sim_driver(&nvml.view))
            return true;
    return false;
}

// How many indices a driver knows: it refuses those past its end, and says of the others what a board has.
static unsigned index_count(void) {
    static const struct {
        unsigned driver, count;
    } known[] = {{575, 18}, {525, 10}, {470, 9}, {0, 7}};
    unsigned i = 0;
    while (known[i].driver > sim_driver(&nvml.view))
        i++;
    return known[i].count;
}

static bool may_list(unsigned device) {
    return sim_has_mig(&nvml.view, device) &&
           (sim_driver(&nvml.view) >= FIRST_WITH_LISTING || mig_enabled(device));
}

struct info_v1 {
    unsigned id, p2p, slices, most, sms, engine[SIM_ENGINES];
    unsigned long long mib;
};

struct info_v2 {
    unsigned version, id, p2p, slices, most, sms, engine[SIM_ENGINES];
    unsigned long long mib;
    char name[96];
};

struct info_v3 {
    unsigned version, id, slices, most, sms, engine[SIM_ENGINES];
    unsigned long long mib;
    char name[96];
    unsigned capabilities;
};

enum { GRAPHICS = 2 };

static void fill_v1(const struct sim_profile *profile, struct info_v1 *out) {
    *out = (struct info_v1){profile->id, 0, profile->compute, profile->most, profile->sms, {0}, profile->mib};
    memcpy(out->engine, profile->engine, sizeof out->engine);
}

static void fill_v2(const struct sim_profile *profile, struct info_v2 *out) {
    *out = (struct info_v2){
        out->version, profile->id, 0, profile->compute, profile->most, profile->sms, {0}, profile->mib, {0},
    };
    memcpy(out->engine, profile->engine, sizeof out->engine);
    snprintf(out->name, sizeof out->name, "MIG %s", profile->name);
}

static void fill_v3(const struct sim_profile *profile, struct info_v3 *out) {
    *out = (struct info_v3){
        out->version, profile->id, profile->compute, profile->most, profile->sms, {0}, profile->mib, {0}, 0};
    memcpy(out->engine, profile->engine, sizeof out->engine);
    snprintf(out->name, sizeof out->name, "MIG %s", profile->name);
    out->capabilities = profile->kind == SIM_GRAPHICS ? GRAPHICS : 0;
}

// The structure says its version in its first word.
static int fill_versioned(const struct sim_profile *profile, void *out) {
    unsigned version = *(unsigned *)out;
    if (version == (sizeof(struct info_v2) | 2u << 24))
        fill_v2(profile, out);
    else if (version == (sizeof(struct info_v3) | 3u << 24))
        fill_v3(profile, out);
    else
        return NVML_VERSION_MISMATCH;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetGpuInstanceProfileInfo, nvmlDevice_t device, unsigned index, struct info_v1 *out) {
    struct sim_profile profile;
    ENTER();
    NEED(is_device(device) && out && index < index_count());
    if (!may_list(number_of(device)) || !profile_by_index(number_of(device), index, &profile))
        return NVML_NOT_SUPPORTED;
    fill_v1(&profile, out);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetGpuInstanceProfileInfoV, nvmlDevice_t device, unsigned index, void *out) {
    enum { FIRST = 470 };
    struct sim_profile profile;
    ENTER();
    if (sim_driver(&nvml.view) < FIRST)
        return NVML_FUNCTION_NOT_FOUND;
    NEED(is_device(device) && out && index < index_count());
    if (!may_list(number_of(device)) || !profile_by_index(number_of(device), index, &profile))
        return NVML_NOT_SUPPORTED;
    return fill_versioned(&profile, out);
}

API(nvmlDeviceGetGpuInstanceProfileInfoByIdV, nvmlDevice_t device, unsigned id, void *out) {
    enum { FIRST = 580 };
    struct sim_profile profile;
    ENTER();
    if (sim_driver(&nvml.view) < FIRST)
        return NVML_FUNCTION_NOT_FOUND;
    NEED(is_device(device) && out);
    if (!may_list(number_of(device)) || !profile_by_id(number_of(device), id, &profile))
        return NVML_NOT_SUPPORTED;
    return fill_versioned(&profile, out);
}

// ------- placements

// Without room it says how many there are.
API(nvmlDeviceGetGpuInstancePossiblePlacements_v2, nvmlDevice_t device, unsigned id, struct placement *out,
    unsigned *count) {
    struct sim_profile profile;
    ENTER();
    NEED(is_device(device) && count);
    NEED_PERMISSION(may_look());
    if (!may_list(number_of(device)) || !profile_by_id(number_of(device), id, &profile))
        return NVML_NOT_SUPPORTED;
    unsigned room = out ? *count : profile.starts;
    *count = profile.starts;
    for (unsigned i = 0; out && i < profile.starts && i < room; i++)
        out[i] = (struct placement){profile.start[i], profile.slots};
    return room < profile.starts ? NVML_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

API(nvmlDeviceGetGpuInstancePossiblePlacements, nvmlDevice_t device, unsigned id, struct placement *out,
    unsigned *count) {
    return nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, out, count);
}

// One with media extensions is alone of its kind; one with all media leaves only those without.
static bool together(const struct sim_profile *one, const struct sim_profile *other) {
    if (one->kind == SIM_ALL_MEDIA || other->kind == SIM_ALL_MEDIA)
        return one->kind == SIM_NO_MEDIA || other->kind == SIM_NO_MEDIA;
    return one->kind != SIM_MEDIA || other->kind != SIM_MEDIA;
}

bool fits(unsigned device, const struct sim_profile *profile, unsigned start) {
    unsigned same = 0;
    for (unsigned gi = 0; gi < SIM_INSTANCES; gi++) {
        const struct sim_instance *instance = sim_instance(&nvml.view, device, gi);
        struct sim_shape shape = sim_shape(atomic_load(&instance->shape));
        struct sim_profile other;
        if (!atomic_load(&instance->serial))
            continue;
        if (start < shape.start + shape.size && shape.start < start + profile->slots)
            return false;
        if (!sim_profile(&nvml.view, device, shape.row, &other) || !together(profile, &other))
            return false;
        same += shape.row == profile->row;
    }
    return same < profile->most;
}

static unsigned count_instances(unsigned device, unsigned row) {
    unsigned n = 0;
    for (unsigned gi = 0; gi < SIM_INSTANCES; gi++) {
        const struct sim_instance *instance = sim_instance(&nvml.view, device, gi);
        n += atomic_load(&instance->serial) && sim_shape(atomic_load(&instance->shape)).row == row;
    }
    return n;
}

API(nvmlDeviceGetGpuInstanceRemainingCapacity, nvmlDevice_t device, unsigned id, unsigned *count) {
    struct sim_profile profile;
    ENTER();
    NEED(count);
    NEED_MIG(device);
    NEED_PERMISSION(may_look());
    if (!profile_by_id(number_of(device), id, &profile))
        return NVML_NOT_SUPPORTED;
    unsigned places = 0, left = profile.most - count_instances(number_of(device), profile.row);
    for (unsigned i = 0; i < profile.starts; i++)
        places += fits(number_of(device), &profile, profile.start[i]);
    *count = places < left ? places : left;
    return NVML_SUCCESS;
}
