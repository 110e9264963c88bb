// SPDX-License-Identifier: Apache-2.0
// Memory and events that processes hand each other by handles of 64 bytes. A block becomes sharable when it
// is first asked for its handle: its bytes move into a file, its charge to a slot of the state that lives
// until the last process that has it closes it. A handle names the file by the owner's pid and descriptor, so
// it serves in one pid namespace and while the owner has the memory, as the real one does.
#include "memory.h"
#include "virtual_memory.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x6d656d2d637069u // "ipc-mem"
enum { LAZY_PEER_ACCESS = 1, PAGE = 4096, PAGES_AT_A_TIME = 512 };

typedef struct {
    uint64_t magic, pid_space, born, offset;
    uint32_t pid;
    int32_t fd, slot;
    unsigned char reserved[20];
} CUipcMemHandle;
_Static_assert(sizeof(CUipcMemHandle) == 64, "ABI");

bool block_show(struct block *block, int fd, uint64_t offset, size_t size) {
    void *at = (void *)block->base;
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == at;
}

void block_hide(struct block *block) {
    mmap((void *)block->base, block->pages * ARENA_PAGE, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    block->dirty = false;
}

void ipc_end(struct block *block) {
    block_hide(block);
    physical_drop(block->physical);
    block->physical = NULL;
}

// ------- the owner

static void copy_page(int fd, const struct block *block, size_t page, uint64_t entry) {
    enum { PRESENT = 63, SWAPPED = 62 };
    if ((entry >> PRESENT | entry >> SWAPPED) & 1 &&
        pwrite(fd, (void *)(block->base + page * PAGE), PAGE, (off_t)(page * PAGE)) != PAGE)
        perror("simulated GPU: a page could not be shared");
}

// Only pages that were ever written: a block may be far larger than this machine.
static bool copy_written(int fd, const struct block *block) {
    uint64_t entry[PAGES_AT_A_TIME];
    size_t all = round_up(block->size, PAGE) / PAGE;
    int map = block->dirty ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
    if (block->dirty && map < 0)
        return false;
    for (size_t page = 0; block->dirty && page < all; page += PAGES_AT_A_TIME) {
        off_t at = (off_t)((block->base / PAGE + page) * sizeof *entry);
        ssize_t n = pread(map, entry, sizeof entry, at);
        for (size_t i = 0; n > 0 && i < (size_t)n / sizeof *entry && page + i < all; i++)
            copy_page(fd, block, page + i, entry[i]);
    }
    if (map >= 0)
        close(map);
    return true;
}

// The charge goes over to the shared slot: with both for a moment, or where that is too much, without.
static struct physical *take_over(struct block *block) {
    struct physical *physical = NULL;
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_PINNED,
                                      .requestedHandleTypes = CU_MEM_HANDLE_FD,
                                      .location = {CU_MEM_LOCATION_DEVICE, block->device}};
    if (!physical_new(&physical, block->charged, &properties)) {
        uncharge(block->device, block->charged);
        return physical;
    }
    uncharge(block->device, block->charged);
    if (physical_new(&physical, block->charged, &properties) && !charge(block->device, block->charged))
        block->charged = 0; // another process was faster; the block is held all the same
    return physical;
}

static CUresult make_sharable(struct block *block) {
    if (block->physical)
        return CUDA_SUCCESS;
    size_t shown = block->pages * ARENA_PAGE;
    struct physical *physical = take_over(block);
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    block->physical = physical;
    if (shown > physical->size)
        shown = physical->size;
    if (copy_written(physical->fd, block) && block_show(block, physical->fd, 0, shown))
        return CUDA_SUCCESS;
    return CUDA_ERROR_OPERATING_SYSTEM;
}

static void write_handle(CUipcMemHandle *out, const struct block *block, uintptr_t address) {
    const struct sim_slot *self = &driver.view.at->slot[driver.view.self];
    int slot = block->physical->slot;
    *out = (CUipcMemHandle){.magic = MAGIC,
                            .pid_space = atomic_load(&self->pid_space),
                            .born = atomic_load(&driver.view.at->slot[slot].born),
                            .offset = address - block->base,
                            .pid = (uint32_t)atomic_load(&self->pid),
                            .fd = block->physical->fd,
                            .slot = slot};
}

API(cuIpcGetMemHandle, CUipcMemHandle *out, CUdeviceptr address) {
    ENTER_CONTEXT();
    NEED(out);
    lock_acquire(&driver.lock);
    struct block *block = arena_find(address);
    struct place place = place_find(address);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (block && (block->kind == KIND_DEVICE || block->kind == KIND_SLAB) && place.kind == KIND_DEVICE)
        result = make_sharable(block);
    if (!result)
        write_handle(out, block, place.base);
    lock_release(&driver.lock);
    return result;
}

// ------- the others

struct opened {
    struct block *block;
    uint64_t block_id, born;
    unsigned times;
    int slot;
    struct opened *next;
};

static struct opened *all_opened;

static bool is_open(const struct opened *opened) {
    return opened->times && opened->block->kind == KIND_IPC && opened->block->id == opened->block_id;
}

static struct opened *find_opened(const CUipcMemHandle *handle) {
    for (struct opened *opened = all_opened; opened; opened = opened->next)
        if (is_open(opened) && opened->slot == handle->slot && opened->born == handle->born)
            return opened;
    return NULL;
}

static CUresult import(struct physical **out, const CUipcMemHandle *handle) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%d", handle->pid, handle->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return CUDA_ERROR_MAP_FAILED;
    CUresult result = physical_import(out, fd);
    close(fd);
    if (!result && ((*out)->slot != handle->slot ||
                    atomic_load(&driver.view.at->slot[handle->slot].born) != handle->born)) {
        physical_drop(*out); // the owner has freed it, and made another since
        result = CUDA_ERROR_INVALID_HANDLE;
    }
    return result;
}

static CUresult show(struct block **out, struct physical *physical, struct context *ctx) {
    struct request request = {physical->size, 0, KIND_IPC, REACH_ALL, ctx, NULL};
    CUresult result = memory_make(out, request);
    if (result)
        return result;
    (*out)->physical = physical;
    (*out)->device = physical->device;
    if (block_show(*out, physical->fd, 0, physical->size))
        return CUDA_SUCCESS;
    physical->references++; // the caller drops its own
    memory_drop(*out);
    return CUDA_ERROR_MAP_FAILED;
}

static CUresult open_new(struct opened **out, const CUipcMemHandle *handle, struct context *ctx) {
    struct physical *physical;
    struct opened *opened = calloc(1, sizeof *opened);
    if (!opened)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = import(&physical, handle);
    if (!result && (result = show(&opened->block, physical, ctx)))
        physical_drop(physical);
    if (result) {
        free(opened);
        return result;
    }
    *opened = (struct opened){opened->block, opened->block->id, handle->born, 0, handle->slot, all_opened};
    *out = all_opened = opened;
    return CUDA_SUCCESS;
}

static CUresult open_handle(CUdeviceptr *out, const CUipcMemHandle *handle, unsigned flags,
                            struct context *ctx) {
    const struct sim_slot *self = &driver.view.at->slot[driver.view.self];
    NEED(out && flags == LAZY_PEER_ACCESS && handle->magic == MAGIC && handle->slot >= 0 &&
         handle->slot < SIM_SLOTS && handle->pid_space == atomic_load(&self->pid_space));
    if (handle->pid == atomic_load(&self->pid))
        return CUDA_ERROR_INVALID_CONTEXT; // a process cannot open what is its own
    lock_acquire(&driver.lock);
    struct opened *opened = find_opened(handle);
    CUresult result = opened ? CUDA_SUCCESS : open_new(&opened, handle, ctx);
    if (!result) {
        opened->times++;
        *out = opened->block->base + handle->offset;
    }
    lock_release(&driver.lock);
    return result;
}

API(cuIpcOpenMemHandle_v2, CUdeviceptr *out, CUipcMemHandle handle, unsigned flags) {
    ENTER_CONTEXT();
    return open_handle(out, &handle, flags, ctx);
}

API(cuIpcOpenMemHandle, CUdeviceptr *out, CUipcMemHandle handle, unsigned flags) {
    ENTER_CONTEXT();
    return open_handle(out, &handle, flags, ctx);
}

static CUresult close_handle(uintptr_t address) {
    struct block *block = arena_find(address);
    NEED(block && block->kind == KIND_IPC);
    for (struct opened **at = &all_opened; *at; at = &(*at)->next) {
        struct opened *opened = *at;
        if (opened->block != block || !is_open(opened) || --opened->times)
            continue;
        *at = opened->next;
        free(opened);
        return memory_drop(block);
    }
    return CUDA_SUCCESS;
}

API(cuIpcCloseMemHandle, CUdeviceptr address) {
    ENTER_CONTEXT();
    lock_acquire(&driver.lock);
    CUresult result = close_handle(address);
    lock_release(&driver.lock);
    return result;
}
