// SPDX-License-Identifier: Apache-2.0
/* Maps a container's ledger into a process and checks that it is one. The file is hostile: a neighbour in the
 * container may have scribbled on it, or cut it. What is checked here is what keeps accesses within the
 * mapping; that it is preallocated keeps them from SIGBUS, unless the container itself cuts it, which harms
 * only itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cell.h"
#include "os.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

_Static_assert(sizeof(struct gp_own) <= 4096, "one page, wiped in a forked child");

static int copy_path(char to[GP_PATH], const char *from) {
    for (unsigned i = 0; i < GP_PATH; i++)
        if (!(to[i] = from[i]))
            return 0;
    errno = ENAMETOOLONG;
    return -1;
}

static int map_file(struct gp_ledger *ledger, int fd, unsigned gpus) {
    uint64_t size = gp_ledger_size(gpus);
    if (!size || (uint64_t)lseek(fd, 0, SEEK_END) != size) {
        errno = EBADMSG;
        return -1;
    }
    void *file = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        return -1;
    if (!gp_ledger_sound(file, size, gpus)) {
        munmap(file, size);
        errno = EBADMSG;
        return -1;
    }
    ledger->file = file;
    return 0;
}

static int map_own(struct gp_ledger *ledger) {
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -1;
    int kept = errno;
    ledger->ask_pid = madvise(page, 4096, MADV_WIPEONFORK) != 0;
    errno = kept;
    ledger->own = page;
    return 0;
}

int gp_ledger_attach(struct gp_ledger *ledger, const char *path, unsigned gpus, const gp_policy *policy) {
    __builtin_memset(ledger, 0, sizeof *ledger);
    ledger->policy = policy;
    ledger->spare = ledger->place = -1;
    int fd = copy_path(ledger->path, path) ? -1 : open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    if (gp_os_identify(fd, ledger->id) || map_file(ledger, fd, gpus)) {
        close(fd);
        return -1;
    }
    if (map_own(ledger)) {
        munmap(ledger->file, gp_ledger_size(gpus));
        close(fd);
        return -1;
    }
    ledger->spare = fd;
    ledger->gpus = gpus;
    ledger->keeps = ledger->file->version >= GP_KEEPING_LAYOUT;
    return 0;
}

void gp_ledger_keep_place(struct gp_ledger *ledger) {
    long me = gp_os_pid();
    int kept = errno;
    if (__atomic_exchange_n(&ledger->place_of, me, __ATOMIC_RELAXED) != me)
        __atomic_store_n(&ledger->place, gp_os_lowest(ledger->spare), __ATOMIC_RELAXED);
    errno = kept;
}
