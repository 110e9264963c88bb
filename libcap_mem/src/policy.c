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

static int complaint(const gp_policy *policy) {
    if (policy->magic != GP_POLICY_MAGIC)
        return EBADMSG;
    if (policy->version != GP_LAYOUT_VERSION)
        return EPROTONOSUPPORT;
    int whole = policy->gpus >= 1 && policy->gpus <= GP_MAX_GPUS &&
                ends(policy->container, sizeof policy->container) && ends(policy->libcuda, GP_PATH) &&
                ends(policy->libnvml, GP_PATH) && ends(policy->ledger, GP_PATH);
    return whole ? 0 : EBADMSG;
}

static const gp_policy *map(int fd) {
    if (lseek(fd, 0, SEEK_END) < (off_t)sizeof(gp_policy)) {
        errno = EBADMSG;
        return 0;
    }
    void *page = mmap(0, sizeof(gp_policy), PROT_READ, MAP_SHARED, fd, 0);
    return page == MAP_FAILED ? 0 : page;
}

int gp_policy_open(const char *path, const gp_policy **out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    const gp_policy *policy = map(fd);
    int kept = errno;
    close(fd);
    errno = kept;
    if (!policy)
        return -1;
    int wrong = complaint(policy);
    if (!wrong) {
        *out = policy;
        return 0;
    }
    munmap((void *)(uintptr_t)policy, sizeof *policy);
    errno = wrong;
    return -1;
}

void gp_policy_set_limit(gp_policy *page, uint32_t gpu, uint64_t bytes) {
    if (gpu >= GP_MAX_GPUS)
        return;
    __atomic_store_n(&page->gpu[gpu].limit, bytes, __ATOMIC_RELEASE);
    __atomic_add_fetch(&page->generation, 1, __ATOMIC_RELEASE);
}
