// SPDX-License-Identifier: Apache-2.0
/* What the accounting asks of the kernel, in few words; an explorer of the sources has its own of these. Raw
 * system calls: the libc names (fcntl64, fstat) are younger than glibc 2.17. They may change errno; callers
 * that must not, save it. */
#ifndef GP_OS_H
#define GP_OS_H

/* A new open file description of the ledger that forks inherit and exec closes, or -1. `spare`: a descriptor
 * to reach it by where the path leads elsewhere by now, or -1. `id`: what it must be. */
int gp_os_open(const char *path, int spare, const unsigned long id[2]);
void gp_os_close(int fd);

/* One more descriptor of the same description, with the lowest number that is free, or -1. */
int gp_os_lowest(int fd);
/* Gives `fd` the number `place`, if that is still one of the file `id`. The number that it has then. */
int gp_os_settle(int fd, int place, const unsigned long id[2]);

/* Whether `fd` is still the file `id`: an application may close descriptors that are not its own. */
int gp_os_is(int fd, const unsigned long id[2]);
int gp_os_identify(int fd, unsigned long id[2]);

/* Takes an exclusive lock on one byte for this open file description: 1 if it is ours now. */
int gp_os_lock(int fd, unsigned byte);
/* 1: no other open file description holds a lock on that byte. */
int gp_os_unlocked(int fd, unsigned byte);

long gp_os_pid(void);

/* Lets others go on: a few turns of the processor, then the rest of our time slice, then 50 microseconds. */
void gp_os_pause(int round);

#endif
