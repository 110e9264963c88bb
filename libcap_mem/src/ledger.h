// SPDX-License-Identifier: Apache-2.0
/* The accounting of one container's GPU memory, as the hooks see it: ask before the driver is asked, give
 * back what it refused or freed. How it is kept (no lock, no waiting for anybody) is told in ledger.c; where,
 * in region_layout.h. Knows nothing of CUDA: `gpu` is an index into the policy's gpu[].
 *
 * Threads may call anything at the same time, except gp_ledger_attach, which is called once, by one thread. A
 * forked child goes on with the same struct and becomes a process of its own at its first reserve or charge.
 * errno is left as it was by every function but gp_policy_open and gp_ledger_attach.
 */
#ifndef GP_LEDGER_H
#define GP_LEDGER_H
#include "region.h"

struct gp_own; /* what this process keeps for itself: ledger_private.h */

struct gp_ledger {
    gp_ledger_file *file; /* mapped, shared with the container's processes */
    struct gp_own *own;   /* a page that the kernel wipes in a forked child */
    const gp_policy *policy;
    unsigned gpus;
    int keeps;     /* the file's layout knows lanes that keep bytes (kept.h) */
    int ask_pid;   /* this kernel cannot wipe: a fork is noticed by asking for the pid at every call */
    int spare;     /* a descriptor of the file, for when `path` is out of reach (chroot), or -1 */
    int place;     /* the number that our sign of life will have, or -1 */
    long place_of; /* the process that keeps it: in a forked child it is the parent's, who lives on by it */
    const char *problem; /* why the last GP_FAILED failed; one of a few constant sentences, or NULL */
    unsigned long id[2]; /* device and inode of the mapped file */
    char path[GP_PATH];
};

struct gp_process {
    int32_t pid; /* as the container numbers it, where the process had its pid */
    uint64_t bytes;
};

enum gp_verdict {
    GP_REFUSED = 0,
    GP_GRANTED = 1,
    GP_FAILED = -1, /* no cell to be had, or the ledger is not usable: refuse; gp_ledger_problem says why */
};

/* Maps the ledger at `path`, made for `gpus` GPUs. `policy` must stay mapped; its limits are read at every
 * grant. 0, or -1 with errno (EBADMSG: the file is no ledger of this layout for so many GPUs). */
int gp_ledger_attach(struct gp_ledger *ledger, const char *path, unsigned gpus, const gp_policy *policy);

/* Keeps a low number for the descriptor by which others see that this process lives: the kernel closes it
 * after those that are opened from now on. */
void gp_ledger_keep_place(struct gp_ledger *ledger);

/* Room for so many bytes under the limit. Only a request that finds none looks for shares that the dead left.
 */
enum gp_verdict gp_reserve(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes);

/* Gives back what was reserved or charged. What this process does not hold cannot be given back: a forked
 * child that frees its parent's memory changes nothing. */
void gp_release(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes);

/* Counts memory that exists already (a context, pages imported from a neighbour): asks no limit. */
enum gp_verdict gp_charge(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes);

/* Charges this process what the policy says that it holds unseen (unseen.h). gp_reserve and gp_charge do so
 * themselves. */
void gp_heed(struct gp_ledger *ledger, unsigned gpu);

/* Bytes that the container's living processes hold. A few system calls: not for the path of a grant. */
uint64_t gp_used(const struct gp_ledger *ledger, unsigned gpu);

/* Bytes that this process holds. */
uint64_t gp_own(const struct gp_ledger *ledger, unsigned gpu);

/* The limit as it stands in the policy now. */
uint64_t gp_limit(const struct gp_ledger *ledger, unsigned gpu);

/* Leaves a trace of a refusal for `gpuportion why`. `api`: the called function's name; its first 23 bytes are
 * kept. */
void gp_note_refusal(struct gp_ledger *ledger, unsigned gpu, uint64_t bytes, const char *api);

/* Living processes that hold memory on this GPU, largest first; at most `room`. Returns how many were
 * written. */
int gp_processes(const struct gp_ledger *ledger, unsigned gpu, struct gp_process *out, int room);

/* Why the last call said GP_FAILED: a clause for a message, never NULL. */
const char *gp_ledger_problem(const struct gp_ledger *ledger);

/* Maps a policy read-only and checks all that the library will rely on: gpus within bounds, strings that end.
 * 0, or -1 with errno: that of open or mmap, EBADMSG (no policy), EPROTONOSUPPORT (another layout version).
 */
int gp_policy_open(const char *path, const gp_policy **out);

#endif
