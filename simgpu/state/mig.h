// SPDX-License-Identifier: Apache-2.0
// MIG in the state: a board's profiles (in the text, from mig_profiles.tsv), the instances that there are,
// and the capabilities by which a process may use one. An instance is there from the moment that its serial
// is not 0: whoever dies while making one has made none. Only the holder of the lock changes anything.
#pragma once
#include "state.h"

enum sim_kind { SIM_PLAIN, SIM_MEDIA, SIM_GRAPHICS, SIM_ALL_MEDIA, SIM_NO_MEDIA };
enum { SIM_STARTS = 8, SIM_ENGINES = 5 };

struct sim_profile {
    unsigned row; // in the board's table
    char name[32];
    unsigned index, id;
    unsigned compute, slots; // slices; size of a placement
    unsigned mib, sms;
    unsigned engine[SIM_ENGINES]; // copy, decoder, encoder, JPEG, optical flow
    unsigned most;
    enum sim_kind kind;
    unsigned starts, start[SIM_STARTS];
    unsigned driver; // the oldest that has it
};

struct sim_shape {
    unsigned row, start, size; // of a compute instance: profile id, and slices
};

#pragma GCC visibility push(hidden)
unsigned sim_driver(const struct sim_view *view); // its major version
bool sim_has_mig(const struct sim_view *view, unsigned device);
unsigned sim_slots(const struct sim_view *view, unsigned device); // of memory; 0: no MIG
// By its row in the board's table, whatever the driver; false: past the end.
bool sim_profile(const struct sim_view *view, unsigned device, unsigned row, struct sim_profile *out);

static inline struct sim_instance *sim_instance(const struct sim_view *view, unsigned device, unsigned gi) {
    return &view->at->mig[device].instance[gi];
}
static inline struct sim_compute *sim_compute(const struct sim_view *view, unsigned device, unsigned gi,
                                              unsigned ci) {
    return &sim_instance(view, device, gi)->compute[ci];
}
static inline struct sim_shape sim_shape(uint64_t word) {
    return (struct sim_shape){word & 255, word >> 8 & 255, word >> 16 & 255};
}
static inline uint64_t sim_shape_word(struct sim_shape shape) {
    return shape.row | shape.start << 8 | shape.size << 16;
}
static inline unsigned sim_account(unsigned device, unsigned gi) {
    return SIM_DEVICES + device * SIM_INSTANCES + gi;
}
static inline unsigned sim_place(unsigned device, unsigned gi, unsigned ci) { // for sim_use
    return sim_account(device, gi) * SIM_COMPUTES + ci;
}

// Slices of a compute instance of `slices`, and its multiprocessors; 0: the instance cannot have such.
unsigned sim_compute_sms(const struct sim_view *view, unsigned device, const struct sim_profile *profile,
                         unsigned slices);
// "2g.10gb", or "1c.2g.10gb" for a compute instance of a part.
void sim_compute_name(const struct sim_profile *profile, unsigned slices, char *out, size_t room);
void sim_uuid_text(const unsigned char *uuid, char out[48]); // "MIG-..."

// The minor numbers of the capabilities' device nodes: those of the instance, and of its compute instance.
enum { SIM_CAP_CONFIG = 1, SIM_CAP_MONITOR = 2, SIM_CAP_FIRST = 3 };
unsigned sim_cap_instance(unsigned device, unsigned gi);
unsigned sim_cap_compute(unsigned device, unsigned gi, unsigned ci);
bool sim_cap_open(unsigned minor); // in a container: whether it may be opened
// Whether there is such a compute instance, and this process may use it.
bool sim_compute_visible(const struct sim_view *view, unsigned device, unsigned gi, unsigned ci);

int sim_mig_lock(const struct sim_view *view); // a descriptor, to be closed; -1: errno
#pragma GCC visibility pop
