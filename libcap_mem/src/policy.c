// SPDX-License-Identifier: Apache-2.0
/* The policy page: the daemon writes it, a container only reads it. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ledger.h"

static int ends(const char *text, int room) {
    for (int i = 0; i < room; i++)
        if (!text[i])
            return 1;
    return 0;
}

static int complaint(const gp_policy *policy, uint64_t bytes) {
    if (policy->magic != GP_POLICY_MAGIC)
        return EBADMSG;
    if (policy->version < GP_OLDEST_LAYOUT || policy->version > GP_LAYOUT_VERSION)
        return EPROTONOSUPPORT;
    uint64_t size = gp_policy_size(policy->version, policy->gpus);
    int whole = size && bytes >= size && ends(policy->container, sizeof policy->container) &&
                ends(policy->libcuda, GP_PATH) && ends(policy->libnvml, GP_PATH) &&
                ends(policy->ledger, GP_PATH);
    return whole ? 0 : EBADMSG;
}

/* No more of the file than the largest policy has. */
static const gp_policy *map(int fd, uint64_t *bytes) {
    const uint64_t most = gp_policy_size(GP_LAYOUT_VERSION, GP_MAX_GPUS);
    off_t end = lseek(fd, 0, SEEK_END);
    if (end < (off_t)sizeof(gp_policy)) {
        errno = end < 0 ? errno : EBADMSG;
        return 0;
    }
    *bytes = (uint64_t)end < most ? (uint64_t)end : most;
    void *page = mmap(0, *bytes, PROT_READ, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? 0 : page;
}

int gp_policy_open(const char *path, const gp_policy **out) {
    uint64_t bytes;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    const gp_policy *policy = map(fd, &bytes);
    int kept = errno;
    close(fd);
    errno = kept;
    if (!policy)
        return -1;
    int wrong = complaint(policy, bytes);
    if (!wrong) {
        *out = policy;
        return 0;
    }
    munmap((void *)(uintptr_t)policy, bytes);
    errno = wrong;
    return -1;
}

void gp_policy_set_limit(gp_policy *page, uint32_t gpu, uint64_t bytes) {
    if (gpu >= GP_MAX_GPUS)
        return;
    __atomic_store_n(&page->gpu[gpu].limit, bytes, __ATOMIC_RELEASE);
    __atomic_add_fetch(&page->generation, 1, __ATOMIC_RELEASE);
}

void gp_policy_set_unseen(gp_policy *page, uint32_t gpu, uint32_t cell, uint64_t generation, uint64_t bytes) {
    if (page->version < 2 || gpu >= page->gpus || cell >= GP_CELLS)
        return;
    __atomic_store_n(&page->cells[gpu].unseen[cell], gp_unseen_word(generation, bytes), __ATOMIC_RELEASE);
    __atomic_add_fetch(&page->generation, 1, __ATOMIC_RELEASE);
}
