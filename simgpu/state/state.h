// SPDX-License-Identifier: Apache-2.0
// The state of the simulated devices: one file that every process which opened the driver maps. It says what
// each process holds of each device, without locks. Knows nothing of CUDA or NVML.
//
//     0        text, "key value" lines: boards, costs, version; written before any process opens it. Later
//     only
//              values change, in place
//     64 KiB   binary: the totals, the slots, MIG (mig.h), and per account and slot a cell (what it holds)
//     and
//              an intent
//
// An account is memory that is taken from: a device's, or a GPU instance's.
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

#define SIM_VERSION "gpuportion-sim 2\n"
#define SIM_CUDA 13050 // what the libraries are made to be, not a setting
#define SIM_TEXT 65536
#define SIM_LINES 8192 // places for the text's lines, of which half may be taken
#define SIM_DEVICES 16
#define SIM_SLOTS 4096
#define SIM_UNIT 65536   // bytes; charges are rounded up to it
#define SIM_INSTANCES 15 // ids of GPU instances on a device
#define SIM_COMPUTES 8   // ids of compute instances in one of them
#define SIM_ACCOUNTS (SIM_DEVICES * (1 + SIM_INSTANCES))
#define SIM_NOTED 5 // compute instances that a slot can name

// Bytes beyond the end of the file, for locks alone: a slot's holders, who has a device or a compute instance
// open, who changes instances.
#define SIM_LIFE(slot) ((1 << 30) + (slot))
#define SIM_USE(place) (SIM_LIFE(SIM_SLOTS) + (place))
#define SIM_CHANGE SIM_USE(SIM_ACCOUNTS *SIM_COMPUTES)

typedef _Atomic uint64_t sim_word;

struct sim_slot {
    sim_word pid;              // in its own pid namespace; 0: nobody's
    sim_word pid_space;        // inode of that pid namespace; 0: not known
    sim_word born;             // nanoseconds since boot; tells owners of one slot apart
    sim_word place[SIM_NOTED]; // the compute instances it has open; each more by one, 0: none
};

struct sim_total {
    sim_word word; // units:24 slot:12 turn:27
    uint64_t apart[7];
};

struct sim_compute {
    sim_word serial; // 0: there is none
    sim_word shape;  // profile:8 first slice:8 slices:8
    unsigned char uuid[16];
};

struct sim_instance {
    sim_word serial; // 0: there is none
    sim_word shape;  // row of its profile:8 first slot:8 slots:8
    struct sim_compute compute[SIM_COMPUTES];
};

struct sim_mig {
    sim_word current, pending; // mode
    sim_word serial;           // the last one given
    uint64_t apart[5];
    struct sim_instance instance[SIM_INSTANCES];
};

struct sim_shared {
    char text[SIM_TEXT];
    sim_word high; // slots below this have been used
    uint64_t apart[7];
    struct sim_total total[SIM_ACCOUNTS];
    struct sim_slot slot[SIM_SLOTS];
    struct sim_mig mig[SIM_DEVICES];
    sim_word cell[SIM_ACCOUNTS][SIM_SLOTS];   // units:24 turn:27
    sim_word intent[SIM_ACCOUNTS][SIM_SLOTS]; // slot:12 less:1 units:24 turn:27
};

struct sim_view {
    struct sim_shared *at;
    char path[256];
    int probe;                       // asks who lives; holds no lock
    int life;                        // holds the locks of this process; -1 for one that only looks
    int self;                        // this process's slot; -1 before sim_enter
    bool container;                  // device nodes say what this process sees
    unsigned visible;                // devices that it sees ...
    unsigned device[SIM_DEVICES];    // ... and their numbers in the state
    uint64_t capacity[SIM_ACCOUNTS]; // bytes that processes can take
    unsigned lines;                  // how many the text has ...
    uint16_t line[SIM_LINES];        // ... and where each begins, by its key; 0: none
};

#pragma GCC visibility push(hidden)
// Opens the state; 0 or an errno. The text below is read by key; "%u" in a key stands for `device`.
int sim_open(struct sim_view *view);
uint64_t sim_number(const struct sim_view *view, const char *key, unsigned device); // 0: no such key
void sim_text(const struct sim_view *view, const char *key, unsigned device, char *out, size_t room);

// Changes. One thread of a process at a time.
int sim_enter(struct sim_view *view); // takes a slot; 0 or an errno (EUSERS: none is free)
bool sim_take(struct sim_view *view, int slot, unsigned account, uint64_t bytes); // false: no room
void sim_give(struct sim_view *view, int slot, unsigned account, uint64_t bytes);

// A further slot is for memory that outlives a process: it lives while any process holds on to it.
int sim_share(struct sim_view *view); // -1: none is free
bool sim_hold(struct sim_view *view, int slot, uint64_t born);
void sim_release(struct sim_view *view, int slot);

bool sim_alive(const struct sim_view *view, int slot);
uint64_t sim_held(const struct sim_view *view, int slot, unsigned account);
uint64_t sim_used(const struct sim_view *view, unsigned account); // bytes held by the living
bool sim_charged(const struct sim_view *view, unsigned account);  // anything, by the living or the dead

// Who has a device (by its number) or a compute instance (mig.h) open: for as long as its slot is held.
void sim_use(struct sim_view *view, unsigned place);
bool sim_in_use(const struct sim_view *view, unsigned place);
bool sim_lock_byte(int fd, int byte, short type);
#pragma GCC visibility pop
