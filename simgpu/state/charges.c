// SPDX-License-Identifier: Apache-2.0
// Who holds what: the slots, and the changes to totals and cells (state.h says how they survive a death at
// any instruction). Knows nothing of the file's text.
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TURNS ((1u << 27) - 1)
#define UNITS ((1u << 24) - 1)

// The words. A total and a cell have their units on top and the turn of their last change at the bottom.
static uint64_t units(uint64_t word) {
    return word >> 40;
}
static unsigned turn(uint64_t word) {
    return word & TURNS;
}
static unsigned changer(uint64_t total) {
    return total >> 27 & (SIM_SLOTS - 1);
}
static uint64_t total_word(uint64_t u, unsigned slot, unsigned t) {
    return u << 40 | (uint64_t)slot << 27 | (t & TURNS);
}
static uint64_t cell_word(uint64_t u, unsigned t) {
    return u << 40 | (t & TURNS);
}

struct change {
    unsigned slot; // whose cell
    bool less;
    uint64_t units;
};

static uint64_t intent_word(struct change c, unsigned t) {
    return (uint64_t)c.slot << 52 | (uint64_t)c.less << 51 | c.units << 27 | (t & TURNS);
}
static struct change intended(uint64_t word) {
    return (struct change){.slot = word >> 52, .less = word >> 51 & 1, .units = word >> 27 & UNITS};
}
static uint64_t apply(uint64_t u, struct change c) {
    return c.less ? u - c.units : u + c.units;
}

// Brings the cell up to date with the total's last change, which its maker may not have lived to do.
static void finish(struct sim_shared *at, unsigned account, uint64_t total) {
    unsigned slot = changer(total);
    uint64_t intent = atomic_load(&at->intent[account][slot]);
    if (turn(intent) != turn(total))
        return; // its maker is further on, so it was finished
    struct change c = intended(intent);
    uint64_t cell = atomic_load(&at->cell[account][c.slot]);
    if (turn(cell) == turn(total) || atomic_load(&at->total[account].word) != total)
        return;
    atomic_compare_exchange_strong(&at->cell[account][c.slot], &cell,
                                   cell_word(apply(units(cell), c), turn(total)));
}

// One attempt at a change on top of `total`, which has been finished.
static bool attempt(struct sim_view *view, unsigned account, uint64_t total, struct change c) {
    struct sim_shared *at = view->at;
    unsigned self = (unsigned)view->self, next = turn(total) + 1;
    uint64_t changed = total_word(apply(units(total), c), self, next);
    atomic_store(&at->intent[account][self], intent_word(c, next));
    if (!atomic_compare_exchange_strong(&at->total[account].word, &total, changed))
        return false;
    finish(at, account, changed);
    return true;
}

static uint64_t last_total(struct sim_shared *at, unsigned account) {
    uint64_t total = atomic_load(&at->total[account].word);
    finish(at, account, total);
    return total;
}

// Takes out what a slot holds if nobody holds on to it, or if it is the caller's to empty.
static void empty(struct sim_view *view, unsigned slot, unsigned account, bool mine) {
    for (;;) {
        uint64_t total = last_total(view->at, account);
        struct change c = {slot, true, units(atomic_load(&view->at->cell[account][slot]))};
        if (!c.units || (!mine && sim_alive(view, (int)slot)) || attempt(view, account, total, c))
            return;
    }
}

// Of an account from which nothing is taken no cell is looked at: most are never used, and have no pages.
static void empty_all(struct sim_view *view, unsigned slot, bool mine) {
    for (unsigned account = 0; account < SIM_ACCOUNTS; account++)
        if (atomic_load(&view->at->total[account].word) && units(last_total(view->at, account)))
            empty(view, slot, account, mine);
}

static void bury(struct sim_view *view, unsigned account) {
    unsigned high = (unsigned)atomic_load(&view->at->high);
    for (unsigned slot = 0; slot < high; slot++)
        if ((int)slot != view->self && units(atomic_load(&view->at->cell[account][slot])))
            empty(view, slot, account, false);
}

static uint64_t in_units(uint64_t bytes) {
    return bytes / SIM_UNIT + (bytes % SIM_UNIT != 0);
}

bool sim_take(struct sim_view *view, int slot, unsigned account, uint64_t bytes) {
    struct change c = {(unsigned)slot, false, in_units(bytes)};
    uint64_t room = view->capacity[account] / SIM_UNIT;
    bool buried = false;
    for (;;) {
        uint64_t total = last_total(view->at, account);
        bool fits = c.units <= room && units(total) <= room - c.units;
        if (fits && attempt(view, account, total, c))
            return true;
        if (!fits && (buried || c.units > room))
            return false;
        if (!fits) {
            bury(view, account);
            buried = true;
        }
    }
}

void sim_give(struct sim_view *view, int slot, unsigned account, uint64_t bytes) {
    struct change c = {(unsigned)slot, true, in_units(bytes)};
    while (!attempt(view, account, last_total(view->at, account), c))
        ;
}

// Not fcntl(3): its newest symbol would keep the library out of images with an older libc.
bool sim_lock_byte(int fd, int byte, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return !syscall(SYS_fcntl, fd, F_OFD_SETLK, &lock);
}

static bool is_locked(const struct sim_view *view, int byte) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return syscall(SYS_fcntl, view->probe, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}

static bool lock_life(int fd, int slot, short type) {
    return sim_lock_byte(fd, SIM_LIFE(slot), type);
}

bool sim_alive(const struct sim_view *view, int slot) {
    return is_locked(view, SIM_LIFE(slot));
}

void sim_use(struct sim_view *view, unsigned place) {
    sim_lock_byte(view->life, SIM_USE((int)place), F_RDLCK);
}

bool sim_in_use(const struct sim_view *view, unsigned place) {
    return is_locked(view, SIM_USE((int)place));
}

static uint64_t pid_space(void) {
    char link[64];
    ssize_t n = readlink("/proc/self/ns/pid", link, sizeof link);
    uint64_t inode = 0;
    for (ssize_t i = 0; i < n; i++)
        if (link[i] >= '0' && link[i] <= '9')
            inode = inode * 10 + (uint64_t)(link[i] - '0');
    return inode;
}

static void describe(struct sim_slot *slot) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    for (unsigned i = 0; i < SIM_NOTED; i++)
        atomic_store(&slot->place[i], 0);
    atomic_store(&slot->pid_space, pid_space());
    atomic_store(&slot->born, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    atomic_store(&slot->pid, (uint64_t)getpid());
}

static void raise_high(struct sim_shared *at, uint64_t to) {
    uint64_t high = atomic_load(&at->high);
    while (high < to && !atomic_compare_exchange_weak(&at->high, &high, to))
        ;
}

// A free slot, locked by this process and emptied; -1: none. The probe sees our own locks, which F_OFD_SETLK
// on our own descriptor would pass over. It's nobody's before it's locked: from then on, until it is
// emptied, its last owner's memory would seem to be held by somebody who lives.
static int claim(struct sim_view *view) {
    for (int slot = 0; slot < SIM_SLOTS; slot++) {
        sim_word *pid = &view->at->slot[slot].pid;
        uint64_t last = atomic_load(pid);
        if (sim_alive(view, slot) || !atomic_compare_exchange_strong(pid, &last, 0) ||
            !lock_life(view->life, slot, F_WRLCK))
            continue;
        if (view->self < 0)
            view->self = slot;
        empty_all(view, (unsigned)slot, true);
        describe(&view->at->slot[slot]);
        raise_high(view->at, (uint64_t)slot + 1);
        return slot;
    }
    return -1;
}

int sim_enter(struct sim_view *view) {
    view->life = open(view->path, O_RDWR | O_CLOEXEC);
    if (view->life < 0)
        return errno;
    if (claim(view) >= 0)
        return 0;
    close(view->life);
    view->life = -1;
    return EUSERS;
}

// How often this process holds on to a further slot: it has one lock however often that is.
static unsigned short holds[SIM_SLOTS];

int sim_share(struct sim_view *view) {
    int slot = claim(view);
    if (slot >= 0) {
        lock_life(view->life, slot, F_RDLCK);
        holds[slot] = 1;
    }
    return slot;
}

bool sim_hold(struct sim_view *view, int slot, uint64_t born) {
    if (slot < 0 || slot >= SIM_SLOTS || !lock_life(view->life, slot, F_RDLCK))
        return false;
    bool same = atomic_load(&view->at->slot[slot].born) == born;
    if (same)
        holds[slot]++;
    else if (!holds[slot])
        lock_life(view->life, slot, F_UNLCK);
    return same;
}

void sim_release(struct sim_view *view, int slot) {
    if (--holds[slot])
        return;
    lock_life(view->life, slot, F_UNLCK);
    empty_all(view, (unsigned)slot, false);
}

uint64_t sim_held(const struct sim_view *view, int slot, unsigned account) {
    return units(atomic_load(&view->at->cell[account][slot])) * SIM_UNIT;
}

static uint64_t held_by_dead(const struct sim_view *view, unsigned account) {
    uint64_t dead = 0;
    unsigned high = (unsigned)atomic_load(&view->at->high);
    for (unsigned slot = 0; slot < high; slot++) {
        uint64_t held = sim_held(view, (int)slot, account);
        if (held && (int)slot != view->self && !sim_alive(view, (int)slot))
            dead += held;
    }
    return dead;
}

// Looks again when a change came between; after a few, a number that was never exact is good enough.
uint64_t sim_used(const struct sim_view *view, unsigned account) {
    uint64_t used = 0;
    for (int looks = 0; looks < 4; looks++) {
        uint64_t total = atomic_load(&view->at->total[account].word);
        uint64_t all = units(total) * SIM_UNIT, dead = all ? held_by_dead(view, account) : 0;
        used = all > dead ? all - dead : 0;
        if (atomic_load(&view->at->total[account].word) == total)
            break;
    }
    return used;
}

bool sim_charged(const struct sim_view *view, unsigned account) {
    return units(atomic_load(&view->at->total[account].word));
}
