// SPDX-License-Identifier: Apache-2.0
// Stops a process after each single instruction of its changes to the state, and sees that nothing is lost:
// once it is killed there, once it goes on after another process has made changes. Prints the number of
// instructions tried.
#include "state.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEVICE = 0, ENOUGH = 100000, REFUSED = 77 };
#define PIECE ((uint64_t)SIM_UNIT)

static struct sim_view view;

static void need(bool condition, const char *what, long steps) {
    if (condition)
        return;
    fprintf(stderr, "after %ld instructions: %s\n", steps, what);
    exit(1);
}

// Three changes to two cells: each follows one to the other cell.
static void change(int shared) {
    sim_take(&view, view.self, DEVICE, 3 * PIECE);
    sim_take(&view, shared, DEVICE, 5 * PIECE);
    sim_give(&view, view.self, DEVICE, PIECE);
}

static void child(void) {
    need(!sim_open(&view) && !sim_enter(&view), "no slot", 0);
    int shared = sim_share(&view);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
        _exit(REFUSED);
    raise(SIGSTOP);
    change(shared);
    raise(SIGSTOP); // its memory is its own until it ends
    _exit(0);
}

// Runs a child for so many instructions of its changes. False: it had done all of them.
static bool run_child(pid_t *pid, long steps) {
    int status;
    *pid = fork();
    if (!*pid)
        child();
    waitpid(*pid, &status, 0);
    if (WIFEXITED(status))
        exit(WEXITSTATUS(status));
    for (long i = 0; i < steps; i++) {
        ptrace(PTRACE_SINGLESTEP, *pid, NULL, NULL);
        waitpid(*pid, &status, 0);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
            return false;
    }
    return true;
}

static uint64_t total(void) {
    return (atomic_load(&view.at->total[DEVICE].word) >> 40) * PIECE;
}

static uint64_t sum(void) {
    uint64_t all = 0;
    for (int slot = 0; slot < SIM_SLOTS; slot++)
        all += sim_held(&view, slot, DEVICE);
    return all;
}

static void change_and_compare(long steps) {
    need(sim_take(&view, view.self, DEVICE, 7 * PIECE), "no room", steps);
    need(total() == sum(), "the total is not the sum of the cells", steps);
    sim_give(&view, view.self, DEVICE, 7 * PIECE);
    need(total() == sum(), "the total is not the sum of the cells after a give", steps);
}

static bool try_killed(long steps) {
    pid_t pid;
    bool within = run_child(&pid, steps);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    change_and_compare(steps);
    need(sim_used(&view, DEVICE) == 0, "the dead hold memory", steps);
    need(sim_take(&view, view.self, DEVICE, view.capacity[DEVICE]), "not all can be taken", steps);
    need(total() == view.capacity[DEVICE], "more than all is taken", steps);
    sim_give(&view, view.self, DEVICE, view.capacity[DEVICE]);
    return within;
}

static void try_resumed(long steps) {
    pid_t pid;
    int status;
    run_child(&pid, steps);
    change_and_compare(steps);
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    waitpid(pid, &status, 0);
    need(total() == sum() && total() == 7 * PIECE, "the changes did not add up", steps);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int main(void) {
    need(!sim_open(&view) && !sim_enter(&view), "no slot", 0);
    long steps = 0;
    while (steps < ENOUGH && try_killed(steps)) {
        try_resumed(steps);
        steps++;
    }
    printf("%ld\n", steps);
    return 0;
}
