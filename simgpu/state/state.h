// SPDX-License-Identifier: Apache-2.0
// The state of the simulated devices: one file that every process which opened the driver maps. It says what
// each process holds of each device, without locks. Knows nothing of CUDA or NVML.
//
//     0        text, "key value" lines: boards, costs, version; written once, before any process opens the
//     file 64 KiB   binary: the totals, the slots, and per device and slot a cell (what it holds) and an
//     intent
//
// A process that opens the driver owns a slot for as long as its descriptor of this file, or a copy that a
// forked child inherited, is open: an open-file-description lock on one byte per slot says so, in any pid
// namespace. What the dead left in their cells is free memory; whoever needs it takes it out.
//
// A charge changes two words, the device's total and a cell, and a process may die between them. So the total
// names the change that made it (slot and turn), the change was written down before (the slot's intent), and
// everyone finishes the last change before making one. Nobody ever waits for anybody.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_VERSION "gpuportion-sim 1\n"
#define SIM_CUDA 13050 // what the libraries are made to be, not a setting
#define SIM_TEXT 65536
#define SIM_DEVICES 16
#define SIM_SLOTS 4096
#define SIM_UNIT 65536                      // bytes; charges are rounded up to it
#define SIM_LIFE(slot) ((1 << 24) + (slot)) // the byte that a slot's holders lock; beyond the end of the file

typedef _Atomic uint64_t sim_word;

struct sim_slot {
    sim_word pid;       // in its own pid namespace; 0: nobody's
    sim_word pid_space; // inode of that pid namespace; 0: not known
    sim_word born;      // nanoseconds since boot; tells owners of one slot apart
    sim_word spare[5];
};

struct sim_total {
    sim_word word; // units:24 slot:12 turn:27
    uint64_t apart[7];
};

struct sim_shared {
    char text[SIM_TEXT];
    sim_word high; // slots below this have been used
    uint64_t apart[7];
    struct sim_total total[SIM_DEVICES];
    struct sim_slot slot[SIM_SLOTS];
    sim_word cell[SIM_DEVICES][SIM_SLOTS];   // units:24 turn:27
    sim_word intent[SIM_DEVICES][SIM_SLOTS]; // slot:12 less:1 units:24 turn:27
};

struct sim_view {
    struct sim_shared *at;
    char path[256];
    int probe;                      // asks who lives; holds no lock
    int life;                       // holds the locks of this process; -1 for one that only looks
    int self;                       // this process's slot; -1 before sim_enter
    unsigned visible;               // devices that this process sees ...
    unsigned device[SIM_DEVICES];   // ... and their numbers in the state
    uint64_t capacity[SIM_DEVICES]; // bytes that processes can take, by number in the state
};

#pragma GCC visibility push(hidden)
// Opens the state; 0 or an errno. The text below is read by key; "%u" in a key stands for `device`.
int sim_open(struct sim_view *view);
uint64_t sim_number(const struct sim_view *view, const char *key, unsigned device); // 0: no such key
void sim_text(const struct sim_view *view, const char *key, unsigned device, char *out, size_t room);

// Changes. One thread of a process at a time.
int sim_enter(struct sim_view *view); // takes a slot; 0 or an errno (EUSERS: none is free)
bool sim_take(struct sim_view *view, int slot, unsigned device, uint64_t bytes); // false: no room
void sim_give(struct sim_view *view, int slot, unsigned device, uint64_t bytes);

// A further slot is for memory that outlives a process: it lives while any process holds on to it.
int sim_share(struct sim_view *view); // -1: none is free
bool sim_hold(struct sim_view *view, int slot, uint64_t born);
void sim_release(struct sim_view *view, int slot);

bool sim_alive(const struct sim_view *view, int slot);
uint64_t sim_held(const struct sim_view *view, int slot, unsigned device);
uint64_t sim_used(const struct sim_view *view, unsigned device); // bytes held by the living
#pragma GCC visibility pop
