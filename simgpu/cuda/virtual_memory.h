// SPDX-License-Identifier: Apache-2.0
// Physical memory with a handle, as virtual memory management has it, and where it is mapped.
#pragma once
#include "driver.h"
#include "intervals.h"

// Lives while its handle, a mapping, or (through `slot`) another process holds on to it.
struct physical {
    uint64_t magic;
    uint64_t references; // handles and mappings in this process
    int fd;              // where the bytes are; the process's common file, or its own if it can be exported
    uint64_t offset;     // ... and from where in it
    bool own_file;
    int slot; // a shared slot of the state that is charged, or -1: the process's own
    int device;
    uint64_t size, charged, id;
    CUmemAllocationProp properties;
    struct team *team; // of a multicast object; NULL: memory
};

// The devices of a multicast object. Where it can be exported they lie in its file, and all processes add to
// them.
struct members {
    uint32_t wanted;        // so many; 0: this is no multicast object
    _Atomic uint32_t added; // a bit for each board
};

#pragma GCC visibility push(hidden)
extern struct intervals reservations; // of addresses
extern struct intervals mappings;     // of physical memory into them; the object is a struct mapping

struct mapping {
    struct physical *physical;
    uint64_t offset;
    uint64_t id;
};

// physical.c; with the driver's lock held
CUresult physical_new(struct physical **out, uint64_t size, const CUmemAllocationProp *properties);
CUresult physical_import(struct physical **out, int fd);
int physical_export(struct physical *physical); // a descriptor, or -1
void physical_drop(struct physical *physical);  // one reference
struct physical *physical_of(CUmemGenericAllocationHandle handle);
struct members *physical_members(struct physical *physical); // of one that can be exported; mapped; or NULL

// multicast.c; with the lock held, but for team_wait
bool team_new(struct physical *physical, struct members *members);
void team_end(struct team *team);
void team_wait(const struct team *team); // until each of its devices has been added
#pragma GCC visibility pop
