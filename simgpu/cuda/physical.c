// SPDX-License-Identifier: Apache-2.0
// Makes, shares and ends physical memory. What cannot be exported lies in one sparse file of the process, so
// that thousands of handles need one descriptor. What can has a file of its own, with a trailer that tells an
// importing process which slot of the state it is charged to: each holder keeps that slot alive.
#include "virtual_memory.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAGIC 0x6c61636973796870
#define TRAILER 4096

struct trailer {
    uint64_t magic, size, charged, slot, born;
    uint32_t device; // in the state
    CUmemAllocationProp properties;
    struct members members;
};

static int common_file = -1;
static uint64_t common_end;

static int new_file(uint64_t size) {
    int fd = (int)syscall(SYS_memfd_create, "gpuportion-sim", 1u /* MFD_CLOEXEC */);
    if (fd >= 0 && ftruncate(fd, (off_t)size)) {
        close(fd);
        return -1;
    }
    return fd;
}

struct physical *physical_of(CUmemGenericAllocationHandle handle) {
    struct physical *physical = (struct physical *)(uintptr_t)handle;
    return physical && physical->magic == MAGIC ? physical : NULL;
}

static bool in_common_file(struct physical *physical) {
    if (common_file < 0)
        common_file = new_file(0);
    if (common_file < 0 || ftruncate(common_file, (off_t)(common_end + physical->size)))
        return false;
    physical->fd = common_file;
    physical->offset = common_end;
    common_end += physical->size;
    return true;
}

static bool in_own_file(struct physical *physical) {
    struct trailer trailer = {MAGIC,
                              physical->size,
                              physical->charged,
                              (uint64_t)physical->slot,
                              atomic_load(&driver.view.at->slot[physical->slot].born),
                              driver.device[physical->device].number,
                              physical->properties};
    physical->own_file = true;
    physical->fd = new_file(physical->size + TRAILER);
    return physical->fd >= 0 &&
           pwrite(physical->fd, &trailer, sizeof trailer, (off_t)physical->size) == sizeof trailer;
}

static bool charge_physical(struct physical *physical) {
    if (!physical->charged)
        return true;
    int slot = physical->slot >= 0 ? physical->slot : driver.view.self;
    return charge_slot(slot, physical->device, physical->charged);
}

static void give_bytes_back(struct physical *physical) {
    if (physical->own_file && physical->fd >= 0)
        close(physical->fd);
    else if (physical->fd >= 0)
        fallocate(physical->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)physical->offset,
                  (off_t)physical->size);
}

static void end(struct physical *physical) {
    if (physical->team)
        team_end(physical->team);
    give_bytes_back(physical);
    if (physical->slot >= 0)
        sim_release(&driver.view, physical->slot);
    else if (physical->charged)
        uncharge(physical->device, physical->charged);
    physical->magic = 0;
    free(physical);
}

CUresult physical_new(struct physical **out, uint64_t size, const CUmemAllocationProp *properties) {
    bool on_device = properties->location.type == CU_MEM_LOCATION_DEVICE;
    struct physical *physical = calloc(1, sizeof *physical);
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *physical = (struct physical){.magic = MAGIC,
                                  .references = 1,
                                  .fd = -1,
                                  .slot = -1,
                                  .size = size,
                                  .id = new_id(),
                                  .device = on_device ? properties->location.id : 0,
                                  .charged = on_device ? size : 0,
                                  .properties = *properties};
    bool shared = properties->requestedHandleTypes == CU_MEM_HANDLE_FD;
    if (shared && (physical->slot = sim_share(&driver.view)) < 0) {
        free(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    uint64_t charged = physical->charged;
    if (!charge_physical(physical)) {
        physical->charged = 0;
        end(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    physical->charged = charged;
    if (!(shared ? in_own_file(physical) : in_common_file(physical))) {
        end(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = physical;
    return CUDA_SUCCESS;
}

void physical_drop(struct physical *physical) {
    if (!--physical->references)
        end(physical);
}

int physical_export(struct physical *physical) {
    return physical->own_file ? (int)syscall(SYS_fcntl, physical->fd, F_DUPFD_CLOEXEC, 3) : -1;
}

static int ordinal_of(uint32_t number) {
    for (unsigned i = 0; i < driver.count; i++)
        if (driver.device[i].number == number)
            return (int)i;
    return -1;
}

struct members *physical_members(struct physical *physical) {
    char *at = physical->own_file ? mmap(NULL, TRAILER, PROT_READ | PROT_WRITE, MAP_SHARED, physical->fd,
                                         (off_t)physical->size)
                                  : MAP_FAILED;
    return at == MAP_FAILED ? NULL : (struct members *)(void *)(at + offsetof(struct trailer, members));
}

// If everyone who held it has gone while its descriptor was on the way, the memory had been freed: it is
// taken anew.
static bool hold_or_take(struct physical *physical, const struct trailer *trailer) {
    physical->slot = (int)trailer->slot;
    if (sim_hold(&driver.view, physical->slot, trailer->born))
        return true;
    physical->slot = sim_share(&driver.view);
    return physical->slot >= 0 && charge_physical(physical);
}

CUresult physical_import(struct physical **out, int fd) {
    struct trailer trailer;
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < TRAILER || pread(fd, &trailer, sizeof trailer, size - TRAILER) != sizeof trailer ||
        trailer.magic != MAGIC || trailer.size + TRAILER != (uint64_t)size)
        return CUDA_ERROR_INVALID_VALUE;
    struct physical *physical = calloc(1, sizeof *physical);
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *physical = (struct physical){.magic = MAGIC,
                                  .references = 1,
                                  .own_file = true,
                                  .slot = -1,
                                  .size = trailer.size,
                                  .id = new_id(),
                                  .charged = trailer.charged,
                                  .properties = trailer.properties};
    // A multicast object is of no device in particular.
    physical->device = trailer.members.wanted ? 0 : ordinal_of(trailer.device);
    physical->fd = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (physical->device < 0 || physical->fd < 0 || !hold_or_take(physical, &trailer)) {
        CUresult result = physical->device < 0 ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_OUT_OF_MEMORY;
        physical->charged = 0;
        end(physical);
        return result;
    }
    if (trailer.members.wanted && !team_new(physical, physical_members(physical))) {
        end(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = physical;
    return CUDA_SUCCESS;
}
