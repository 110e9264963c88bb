// SPDX-License-Identifier: Apache-2.0
// The pid by which the caller knows the owner of a slot. An owner wrote down its pid as of its own pid
// namespace; where that is not ours, /proc says who it is here. A process that cannot be seen from here has
// no pid here.
#include "nvml.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static _Atomic unsigned
    known[SIM_SLOTS]; // the last answer for a slot; looked at again before it is given again

static uint64_t pid_space_of(const char *process) {
    char path[64], link[64];
    uint64_t inode = 0;
    snprintf(path, sizeof path, "/proc/%.20s/ns/pid", process);
    ssize_t n = readlink(path, link, sizeof link);
    for (ssize_t i = 0; i < n; i++)
        if (link[i] >= '0' && link[i] <= '9')
            inode = inode * 10 + (uint64_t)(link[i] - '0');
    return inode;
}

// The last number of the line "NSpid: ..." : the pid in the process's own namespace.
static uint64_t innermost_pid(const char *process) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%.20s/status", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *line = strstr(text, "\nNSpid:");
    uint64_t pid = 0;
    for (const char *at = line ? line + 7 : ""; *at && *at != '\n'; at++)
        pid = *at < '0' || *at > '9' ? (at[1] >= '0' && at[1] <= '9' ? 0 : pid)
                                     : pid * 10 + (uint64_t)(*at - '0');
    return pid;
}

static bool is(const char *process, uint64_t space, uint64_t pid) {
    return pid_space_of(process) == space && innermost_pid(process) == pid;
}

static unsigned search(uint64_t space, uint64_t pid) {
    unsigned found = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; !found && proc && (entry = readdir(proc));)
        if (*entry->d_name >= '1' && *entry->d_name <= '9' && is(entry->d_name, space, pid))
            found = (unsigned)strtoul(entry->d_name, NULL, 10);
    if (proc)
        closedir(proc);
    return found;
}

uint64_t pid_space_here(void) {
    return pid_space_of("self");
}

unsigned pid_here(unsigned slot, uint64_t here) {
    const struct sim_slot *owner = &nvml.view.at->slot[slot];
    uint64_t pid = atomic_load(&owner->pid), space = atomic_load(&owner->pid_space);
    if (!pid || space == here)
        return (unsigned)pid;
    char process[24];
    snprintf(process, sizeof process, "%u", known[slot]);
    if (!is(process, space, pid))
        known[slot] = search(space, pid);
    return known[slot];
}
