// SPDX-License-Identifier: Apache-2.0
/* The truth, by cell: what was granted to its owner and not given back. A change of it must be made by the
 * cell's own process and be what its call wants. The total is the truth and what lanes keep; it changes with
 * the truth, or loses a dead one's share whole, or what a lane kept. The daemon's reader must agree with the
 * truth at every instant; a grant or refusal must have been right at some moment of the call. */
#include "world.h"

#include <string.h>

#include "kept.h"
#include "os.h"

#define DESCRIPTIONS 64

struct process process[PROCESSES];
struct thread thread[THREADS];
struct tally tally;
int threads, current;

static _Alignas(4096) unsigned char bytes[sizeof(gp_ledger_file) + sizeof(gp_ledger_gpu)];
static gp_ledger_file *const file = (gp_ledger_file *)bytes;
static gp_policy policy;
static gp_total last;
static uint64_t truth[GP_CELLS], kept[GP_CELLS];
static struct description {
    unsigned holders; /* processes, by bit */
    uint64_t memory;  /* device memory of the process that opened it; lives as long */
} description[DESCRIPTIONS];
static int lock[2 * GP_CELLS]; /* the description that holds it, or 0 */

uint64_t limit_now(void) {
    return policy.gpu[0].limit;
}

static int owner_lives(unsigned cell) {
    return lock[GP_CELLS + cell] != 0;
}

static uint64_t sum_truth(unsigned except) {
    uint64_t sum = 0;
    for (unsigned cell = 0; cell < GP_CELLS; cell++)
        sum += except >> cell & 1 ? 0 : truth[cell];
    return sum;
}

/* Something changed that bears on whether calls in flight can be granted or refused. */
static void note_moment(void) {
    for (int i = 0; i < threads; i++) {
        struct thread *t = &thread[i];
        if (!t->live || t->want <= 0)
            continue;
        for (unsigned cell = 0; cell < GP_CELLS; cell++)
            t->taken |= (unsigned)(lock[cell] && lock[cell] != process[t->process].own.fd) << cell;
        t->could_grant |= sum_truth(0) + (uint64_t)t->want <= limit_now();
        t->could_refuse |= sum_truth(t->dead) + (uint64_t)t->want > limit_now();
    }
}

static void drop(int fd, int p) {
    description[fd].holders &= ~(1u << p);
    if (description[fd].holders)
        return;
    description[fd].memory = 0;
    for (int byte = 0; byte < 2 * GP_CELLS; byte++)
        if (lock[byte] == fd)
            lock[byte] = 0;
}

static void judge_taking_out(unsigned cell, int64_t change) {
    tally.taken_out++;
    if (owner_lives(cell))
        violation("took out the share of a living process");
    if ((uint64_t)-change != truth[cell] + kept[cell])
        violation("took out more or less than the dead left");
    truth[cell] = kept[cell] = 0;
    for (int i = 0; i < threads; i++)
        thread[i].dead &= ~(1u << cell); /* what it holds next is new */
}

static void judge_change(unsigned cell, int64_t change) {
    struct thread *t = &thread[current];
    if (cell != process[t->process].own.cell || !owner_lives(cell))
        violation("a change in a cell that is not one's own");
    if (!change)
        violation("mended a total that was right");
    if (change > 0 ? change != t->want : change < t->want)
        violation("a change that nobody asked for");
    if (change > 0 && t->obeys && !t->could_grant)
        violation("granted, though there was no room since the total was looked at");
    if (change > 0 && t->granted++)
        violation("granted twice");
    t->given -= change;
    truth[cell] += (uint64_t)change;
}

static void judge_draining(unsigned cell, int64_t change) {
    tally.drained++;
    if (change >= 0 || (uint64_t)-change > kept[cell])
        violation("took out what no lane kept");
    kept[cell] += (uint64_t)change;
}

/* The total stays as it is: a grant is made of what a lane keeps, or the lane keeps what is given back. */
static void judge_keeping(unsigned cell, int64_t change) {
    tally.kept += change < 0;
    judge_change(cell, change);
    kept[cell] -= (uint64_t)change;
    note_moment();
}

/* What the lanes of a cell keep, those that the total's tag says are drained apart. */
static uint64_t lanes_keep(unsigned cell) {
    const gp_ledger_gpu *gpu = &file->gpu[0];
    uint64_t generation = file->cell[cell].generation, sum = 0, mark = (uint64_t)cell << 8;
    if (gpu->share[cell].voided >= generation || gpu->total.tag == (generation << 16 | mark | GP_VOID))
        return 0;
    for (unsigned i = 0; i < GP_LANES; i++) {
        const gp_lane *lane = &gpu->lane[cell][i];
        int drained = gpu->total.tag == (lane->done << 16 | mark | GP_DRAINED | i) && !gp_is_open(lane->kept);
        sum += drained ? 0 : gp_kept(lane->kept);
    }
    return sum;
}

static void judge_shares(void) {
    uint64_t sum = 0, memory = 0, idle = 0;
    for (unsigned cell = 0; cell < GP_CELLS; cell++) {
        uint64_t share = gp_ledger_share(file, 0, cell);
        if (share != truth[cell])
            judge_keeping(cell, (int64_t)(share - truth[cell]));
        if (lanes_keep(cell) != kept[cell])
            violation("lanes do not keep what was put there");
        sum += share;
        idle += kept[cell];
    }
    for (int fd = 1; fd < DESCRIPTIONS; fd++)
        memory += description[fd].memory;
    if (sum + idle != file->gpu[0].total.used)
        violation("the total is not the sum of the shares and what is kept");
    if (memory > sum)
        violation("more device memory is in use than is accounted");
}

void world_observe(void) {
    gp_total now = file->gpu[0].total;
    if (now.tag == last.tag && now.used != last.used)
        violation("the total changed, its tag did not");
    if (now.tag != last.tag) {
        unsigned cell = now.tag >> 8 & 255;
        int64_t change = (int64_t)(now.used - last.used);
        last = now;
        if ((now.tag & 255) == GP_VOID)
            judge_taking_out(cell, change);
        else if (now.tag & GP_DRAINED)
            judge_draining(cell, change);
        else
            judge_change(cell, change);
        note_moment();
    }
    judge_shares();
}

void world_look(void) {
    thread[current].could_grant = 0;
    note_moment();
}

void world_reset(uint64_t limit, int processes) {
    memset(bytes, 0, sizeof bytes);
    memset(&policy, 0, sizeof policy);
    memset(truth, 0, sizeof truth);
    memset(kept, 0, sizeof kept);
    memset(description, 0, sizeof description);
    memset(lock, 0, sizeof lock);
    memset(thread, 0, sizeof thread);
    memset(process, 0, sizeof process);
    last = (gp_total){0, 0};
    gp_ledger_format(file, 1);
    policy.gpu[0].limit = limit;
    threads = 0;
    for (int p = 0; p < processes; p++)
        world_start(p);
}

void world_start(int p) {
    memset(&process[p], 0, sizeof process[p]);
    process[p].alive = 1;
    process[p].ledger = (struct gp_ledger){.file = file,
                                           .own = &process[p].own,
                                           .policy = &policy,
                                           .gpus = 1,
                                           .keeps = 1,
                                           .spare = -1,
                                           .place = -1};
}

void world_fork(int parent, int child) {
    tally.forks++;
    world_start(child);
    for (int fd = 1; fd < DESCRIPTIONS; fd++)
        if (description[fd].holders >> parent & 1)
            description[fd].holders |= 1u << child;
}

void world_kill(int p) {
    tally.kills++;
    process[p].alive = 0;
    for (int fd = 1; fd < DESCRIPTIONS; fd++)
        if (description[fd].holders >> p & 1)
            drop(fd, p);
    for (int i = 0; i < threads; i++)
        if (thread[i].process == p)
            thread[i].live = 0;
    note_moment();
}

void world_resize(uint64_t limit) {
    tally.resizes++;
    policy.gpu[0].limit = limit;
    note_moment();
}

uint64_t world_holds(int p) {
    return process[p].own.fd > 0 ? description[process[p].own.fd].memory : 0;
}

static void begin(int64_t want, int obeys) {
    struct thread *t = &thread[current];
    unsigned dead = 0;
    for (unsigned cell = 0; cell < GP_CELLS; cell++)
        dead |= (unsigned)(truth[cell] && !owner_lives(cell)) << cell;
    t->want = want, t->obeys = obeys, t->dead = dead;
    t->granted = t->could_grant = t->could_refuse = 0;
    t->taken = 0, t->given = 0;
    t->steps = 0;
    t->calls++;
    note_moment();
}

static void end(void) {
    world_observe();
    struct thread *t = &thread[current];
    tally.longest_call = t->steps > tally.longest_call ? t->steps : tally.longest_call;
    t->want = 0;
}

static enum gp_verdict judge_verdict(enum gp_verdict verdict, uint64_t bytes) {
    struct thread *t = &thread[current];
    world_observe();
    if ((verdict == GP_GRANTED) != t->granted)
        violation("the verdict is not what was done");
    if (verdict == GP_REFUSED && (!t->obeys || !t->could_refuse))
        violation("refused, though there was room all the time");
    if (verdict == GP_FAILED && t->taken + 1 != 1u << GP_CELLS)
        violation("no cell, though one was free all the time");
    tally.grants += verdict == GP_GRANTED;
    tally.refusals += verdict == GP_REFUSED;
    tally.full += verdict == GP_FAILED;
    if (verdict == GP_GRANTED)
        description[process[t->process].own.fd].memory += bytes;
    end();
    return verdict;
}

enum gp_verdict call_reserve(uint64_t bytes) {
    begin((int64_t)bytes, 1);
    return judge_verdict(gp_reserve(&process[thread[current].process].ledger, 0, bytes), bytes);
}

enum gp_verdict call_charge(uint64_t bytes) {
    begin((int64_t)bytes, 0);
    return judge_verdict(gp_charge(&process[thread[current].process].ledger, 0, bytes), bytes);
}

void call_release(uint64_t bytes) {
    struct process *p = &process[thread[current].process];
    uint64_t before = world_holds(thread[current].process);
    if (before) /* freed before it is given back; not more than there is */
        description[p->own.fd].memory -= bytes < before ? bytes : before;
    begin(-(int64_t)bytes, 0);
    gp_release(&p->ledger, 0, bytes);
    world_observe();
    if (thread[current].given != (int64_t)(bytes < before ? bytes : before))
        violation("not all was given back, or too much");
    end();
}

void call_used(void) {
    begin(0, 0);
    gp_used(&process[thread[current].process].ledger, 0);
    end();
}

int gp_os_open(const char *path, int spare, const unsigned long id[2]) {
    (void)path, (void)spare, (void)id;
    explore_step("open");
    for (int fd = 1; fd < DESCRIPTIONS; fd++)
        if (!description[fd].holders) {
            description[fd] = (struct description){1u << thread[current].process, 0};
            return fd;
        }
    violation("the world is out of descriptions");
}

int gp_os_settle(int fd, int place, const unsigned long id[2]) {
    (void)place, (void)id;
    return fd;
}

void gp_os_close(int fd) {
    explore_step("close");
    drop(fd, thread[current].process);
    note_moment();
}

int gp_os_is(int fd, const unsigned long id[2]) {
    return (void)id, fd > 0;
}

int gp_os_lock(int fd, unsigned byte) {
    explore_step("lock");
    if (lock[byte] && lock[byte] != fd)
        return 0;
    if (byte >= GP_CELLS && truth[byte - GP_CELLS] + kept[byte - GP_CELLS])
        violation("a new owner took what a dead one left for its own");
    lock[byte] = fd;
    note_moment();
    return 1;
}

int gp_os_unlocked(int fd, unsigned byte) {
    explore_step("ask for lock");
    return !lock[byte] || lock[byte] == fd;
}

long gp_os_pid(void) {
    return thread[current].process + 1;
}

void gp_os_pause(int round) {
    (void)round;
    explore_pause();
}
