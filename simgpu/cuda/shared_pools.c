// SPDX-License-Identifier: Apache-2.0
// Pools that several processes use. Such a pool's bytes lie in a file, which begins with a header that tells
// an importing process whose slot of the state is charged; whoever has the pool keeps that slot alive. An
// importer cannot allocate: it maps the blocks whose places in the file the owner tells it.
#include "pools.h"
#include "virtual_memory.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POOL_MAGIC 0x6c6f6f702d6d6973u // "sim-pool"
#define POINTER_MAGIC 0x746e696f702d6d69u
enum { HEADER = 4096 };

struct header {
    uint64_t magic, slot, born;
    uint32_t device; // in the state
    CUmemPoolProps properties;
};

typedef struct {
    uint64_t magic, born, offset, size;
    unsigned char reserved[32];
} CUmemPoolPtrExportData;
_Static_assert(sizeof(CUmemPoolPtrExportData) == 64, "ABI");

static uint64_t born_of(int slot) {
    return atomic_load(&driver.view.at->slot[slot].born);
}

bool pool_share(struct pool *pool) {
    pool->slot = sim_share(&driver.view);
    pool->file = (int)syscall(SYS_memfd_create, "gpuportion-sim-pool", 1u /* MFD_CLOEXEC */);
    pool->file_end = ARENA_PAGE;
    if (pool->slot < 0 || pool->file < 0 || ftruncate(pool->file, (off_t)pool->file_end))
        return false;
    struct header header = {POOL_MAGIC, (uint64_t)pool->slot, born_of(pool->slot),
                            driver.device[pool->device].number, pool->properties};
    return pwrite(pool->file, &header, sizeof header, 0) == sizeof header;
}

void pool_unshare(struct pool *pool) {
    if (pool->file >= 0)
        close(pool->file);
    if (pool->slot >= 0)
        sim_release(&driver.view, pool->slot);
    pool->file = pool->slot = -1;
}

bool pool_show(struct pool *pool, struct block *block) {
    size_t size = round_up(block->size, HEADER);
    block->offset = pool->file_end;
    if (ftruncate(pool->file, (off_t)(pool->file_end + size)) ||
        !block_show(block, pool->file, block->offset, size))
        return false;
    pool->file_end += round_up(size, ARENA_PAGE);
    return true;
}

void pool_hide(struct pool *pool, struct block *block) {
    block_hide(block);
    if (!pool->imported)
        fallocate(pool->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)block->offset,
                  (off_t)round_up(block->size, HEADER));
}

API(cuMemPoolExportToShareableHandle, void *out, CUmemoryPool pool, int type, uint64_t flags) {
    ENTER();
    NEED(out && is_pool(pool) && !flags && type == CU_MEM_HANDLE_FD && pool->file >= 0 && !pool->imported);
    int fd = (int)syscall(SYS_fcntl, pool->file, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    *(int *)out = fd;
    return CUDA_SUCCESS;
}

static int ordinal_of(uint32_t number) {
    for (unsigned i = 0; i < driver.count; i++)
        if (driver.device[i].number == number)
            return (int)i;
    return -1;
}

// If nobody has held the pool while its descriptor was on the way, its memory is gone.
static CUresult import(struct pool **out, const struct header *header, int fd) {
    int device = ordinal_of(header->device);
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!sim_hold(&driver.view, (int)header->slot, header->born))
        return CUDA_ERROR_INVALID_HANDLE;
    struct pool *pool = pool_make(&header->properties, device);
    int file = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (!pool || file < 0) {
        sim_release(&driver.view, (int)header->slot);
        return CUDA_ERROR_OUT_OF_MEMORY; // an unused pool object may stay: it holds nothing
    }
    pool->imported = true;
    pool->slot = (int)header->slot;
    pool->file = file;
    *out = pool;
    return CUDA_SUCCESS;
}

API(cuMemPoolImportFromShareableHandle, CUmemoryPool *out, void *shareable, int type, uint64_t flags) {
    ENTER();
    struct header header;
    int fd = (int)(intptr_t)shareable;
    NEED(out && !flags && type == CU_MEM_HANDLE_FD);
    NEED(pread(fd, &header, sizeof header, 0) == sizeof header && header.magic == POOL_MAGIC);
    lock_acquire(&driver.lock);
    CUresult result = import(out, &header, fd);
    lock_release(&driver.lock);
    return result;
}

API(cuMemPoolExportPointer, CUmemPoolPtrExportData *out, CUdeviceptr address) {
    ENTER();
    NEED(out);
    lock_acquire(&driver.lock);
    struct block *block = arena_find(address);
    bool ours = block && block->kind == KIND_POOL && block->base == address && block->pool->file >= 0 &&
                !block->pool->imported;
    if (ours)
        *out =
            (CUmemPoolPtrExportData){POINTER_MAGIC, born_of(block->pool->slot), block->offset, block->size};
    lock_release(&driver.lock);
    return ours ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult import_pointer(CUdeviceptr *out, struct pool *pool, const CUmemPoolPtrExportData *data,
                               struct context *ctx) {
    CUresult result = pool_block(out, data->size, pool, ctx);
    if (result)
        return result;
    struct block *block = arena_find(*out);
    if (block_show(block, pool->file, data->offset, round_up(data->size, HEADER)))
        return CUDA_SUCCESS;
    memory_drop(block);
    return CUDA_ERROR_MAP_FAILED;
}

API(cuMemPoolImportPointer, CUdeviceptr *out, CUmemoryPool pool, CUmemPoolPtrExportData *data) {
    ENTER_CONTEXT();
    NEED(out && data && is_pool(pool) && pool->imported && data->magic == POINTER_MAGIC && data->size &&
         data->born == born_of(pool->slot));
    lock_acquire(&driver.lock);
    CUresult result = import_pointer(out, pool, data, ctx);
    lock_release(&driver.lock);
    return result;
}
