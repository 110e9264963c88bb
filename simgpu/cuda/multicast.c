// SPDX-License-Identifier: Apache-2.0
// Multicast objects: a range that stands for memory of several devices at once. It costs no memory itself;
// what is bound to it lives until it is unbound or the object is gone, as if it were mapped. What is written
// to the range reaches nothing: that is the work of kernels and the switch.
#include "memory.h"
#include "virtual_memory.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, HOPPER = 9, BLACKWELL_WORKSTATION = 12 };

struct binding {
    struct physical *memory; // NULL: of a pool, which is not kept by this
    int device;
    size_t at, size;
    struct binding *next;
};

struct team {
    struct members *members;
    bool mapped; // the members are those of a file
    struct binding *bindings;
};

typedef struct {
    unsigned devices;
    size_t size;
    unsigned long long handle_types, flags;
} CUmulticastObjectProp;

// It is the switch between boards with NVLink that does the work, from this generation on.
bool multicast_works(int device) {
    const struct device *at = &driver.device[device];
    uint64_t generation = sim_number(&driver.view, "board.%u.cc_major", at->board);
    return !at->mig && generation >= HOPPER && generation < BLACKWELL_WORKSTATION &&
           sim_number(&driver.view, "board.%u.nvlinks", at->board);
}

static CUresult sound(const CUmulticastObjectProp *asked) {
    NEED(asked && asked->devices && asked->size && asked->size % driver.costs.granularity == 0 &&
         !asked->flags);
    for (unsigned i = 0; i < driver.count; i++)
        if (!multicast_works((int)i))
            return CUDA_ERROR_NOT_SUPPORTED;
    if (asked->handle_types & ~(unsigned long long)CU_MEM_HANDLE_FD)
        return CUDA_ERROR_NOT_SUPPORTED;
    // Without a handle no other process can bring the devices that this one does not have.
    NEED(asked->devices <= (asked->handle_types ? SIM_DEVICES : driver.count));
    return CUDA_SUCCESS;
}

API(cuMulticastGetGranularity, size_t *granularity, const CUmulticastObjectProp *asked, int option) {
    ENTER();
    NEED(granularity && asked && (option == 0 || option == 1));
    *granularity = driver.costs.granularity;
    return CUDA_SUCCESS;
}

bool team_new(struct physical *physical, struct members *members) {
    physical->team = members ? calloc(1, sizeof *physical->team) : NULL;
    if (physical->team)
        *physical->team = (struct team){.members = members, .mapped = physical->own_file};
    return physical->team;
}

static CUresult object_new(struct physical **out, const CUmulticastObjectProp *asked) {
    CUmemAllocationProp properties = {.requestedHandleTypes = (int)asked->handle_types};
    CUresult result = physical_new(out, asked->size, &properties);
    if (result)
        return result;
    struct members *members = asked->handle_types ? physical_members(*out) : calloc(1, sizeof *members);
    if (members)
        members->wanted = asked->devices;
    if (team_new(*out, members))
        return CUDA_SUCCESS;
    physical_drop(*out);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

API(cuMulticastCreate, CUmemGenericAllocationHandle *out, const CUmulticastObjectProp *asked) {
    ENTER();
    NEED(out);
    CUresult result = sound(asked);
    if (result)
        return result;
    struct physical *object = NULL;
    lock_acquire(&driver.lock);
    result = object_new(&object, asked);
    lock_release(&driver.lock);
    if (!result)
        *out = (uintptr_t)object;
    return result;
}

static struct team *team_of(CUmemGenericAllocationHandle handle) {
    struct physical *physical = physical_of(handle);
    return physical ? physical->team : NULL;
}

static uint32_t bit_of(int device) {
    return 1u << driver.device[device].board;
}

API(cuMulticastAddDevice, CUmemGenericAllocationHandle object, CUdevice device) {
    ENTER();
    struct team *team = team_of(object);
    NEED(team);
    NEED_DEVICE(device);
    uint32_t added = atomic_load(&team->members->added);
    do {
        NEED(!(added & bit_of(device)) && (unsigned)__builtin_popcount(added) < team->members->wanted);
    } while (!atomic_compare_exchange_weak(&team->members->added, &added, added | bit_of(device)));
    return CUDA_SUCCESS;
}

void team_wait(const struct team *team) {
    struct timespec pause = {0, 1000000};
    while ((unsigned)__builtin_popcount(atomic_load(&team->members->added)) < team->members->wanted)
        nanosleep(&pause, NULL);
}

static void unbind(struct binding **link) {
    struct binding *binding = *link;
    *link = binding->next;
    if (binding->memory)
        physical_drop(binding->memory);
    free(binding);
}

void team_end(struct team *team) {
    while (team->bindings)
        unbind(&team->bindings);
    if (team->mapped)
        munmap((void *)((uintptr_t)team->members & ~(uintptr_t)(PAGE - 1)), PAGE);
    else
        free(team->members);
    free(team);
}

// ------- binding

static bool taken(const struct team *team, int device, size_t at, size_t size) {
    for (const struct binding *bound = team->bindings; bound; bound = bound->next)
        if (bound->device == device && at < bound->at + bound->size && bound->at < at + size)
            return true;
    return false;
}

// With the lock held.
static CUresult bind(struct physical *object, struct binding wanted) {
    struct team *team = object->team;
    NEED(wanted.size && (wanted.at | wanted.size) % driver.costs.granularity == 0);
    NEED(wanted.at <= object->size && wanted.size <= object->size - wanted.at);
    NEED(atomic_load(&team->members->added) & bit_of(wanted.device));
    // What others can reach through the object must be theirs to reach.
    NEED(!object->own_file || !wanted.memory || wanted.memory->own_file);
    NEED(!taken(team, wanted.device, wanted.at, wanted.size));
    struct binding *bound = malloc(sizeof *bound);
    if (!bound)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *bound = wanted;
    bound->next = team->bindings;
    team->bindings = bound;
    if (bound->memory)
        bound->memory->references++;
    return CUDA_SUCCESS;
}

static CUresult bind_memory(CUmemGenericAllocationHandle object, int device, size_t at,
                            CUmemGenericAllocationHandle handle, size_t offset, size_t size) {
    struct physical *memory = physical_of(handle);
    NEED(team_of(object) && memory && !memory->team && memory->charged && device < (int)driver.count);
    NEED(device < 0 || device == memory->device);
    NEED(offset % driver.costs.granularity == 0 && offset <= memory->size && size <= memory->size - offset);
    team_wait(team_of(object));
    lock_acquire(&driver.lock);
    CUresult result = bind(physical_of(object), (struct binding){memory, memory->device, at, size, NULL});
    lock_release(&driver.lock);
    return result;
}

API(cuMulticastBindMem, CUmemGenericAllocationHandle object, size_t at, CUmemGenericAllocationHandle memory,
    size_t offset, size_t size, unsigned long long flags) {
    ENTER();
    NEED(!flags);
    return bind_memory(object, -1, at, memory, offset, size);
}

API(cuMulticastBindMem_v2, CUmemGenericAllocationHandle object, CUdevice device, size_t at,
    CUmemGenericAllocationHandle memory, size_t offset, size_t size, unsigned long long flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(!flags);
    return bind_memory(object, device, at, memory, offset, size);
}

// Memory of cuMemCreate by where it is mapped, or of a pool.
static CUresult bind_place(struct physical *object, int device, size_t at, uintptr_t address, size_t size) {
    struct interval *mapped = intervals_find(&mappings, address);
    struct physical *memory = mapped ? ((struct mapping *)mapped->object)->physical : NULL;
    struct place place = place_find(address);
    NEED(place.kind == KIND_DEVICE && (memory || place.pool) && (!memory || !memory->team));
    NEED(address % driver.costs.granularity == 0 && size <= place.base + place.size - address);
    NEED(device < 0 || device == place.device);
    return bind(object, (struct binding){memory, place.device, at, size, NULL});
}

static CUresult bind_address(CUmemGenericAllocationHandle object, int device, size_t at, uintptr_t address,
                             size_t size) {
    NEED(team_of(object));
    team_wait(team_of(object));
    lock_acquire(&driver.lock);
    CUresult result = bind_place(physical_of(object), device, at, address, size);
    lock_release(&driver.lock);
    return result;
}

API(cuMulticastBindAddr, CUmemGenericAllocationHandle object, size_t at, CUdeviceptr address, size_t size,
    unsigned long long flags) {
    ENTER();
    NEED(!flags);
    return bind_address(object, -1, at, address, size);
}

API(cuMulticastBindAddr_v2, CUmemGenericAllocationHandle object, CUdevice device, size_t at,
    CUdeviceptr address, size_t size, unsigned long long flags) {
    ENTER();
    NEED_DEVICE(device);
    NEED(!flags);
    return bind_address(object, device, at, address, size);
}

API(cuMulticastUnbind, CUmemGenericAllocationHandle object, CUdevice device, size_t at, size_t size) {
    ENTER();
    struct team *team = team_of(object);
    NEED(team);
    NEED_DEVICE(device);
    lock_acquire(&driver.lock);
    struct binding **link = &team->bindings;
    while (*link && ((*link)->device != device || (*link)->at != at || (*link)->size != size))
        link = &(*link)->next;
    bool found = *link;
    if (found)
        unbind(link);
    lock_release(&driver.lock);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
