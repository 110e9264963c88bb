// SPDX-License-Identifier: Apache-2.0
/* The lock of a process's threads: one at a time has it, nobody sleeps on when it is free, and nobody is kept
 * out by one who takes it again and again.   lock_storm TURNS
 *
 * First a greedy thread, asleep while it has the lock, as in a driver's call, and taking it again in the same
 * breath; the others want TURNS each, or this never ends. Then many threads count to a sum that two at once
 * would miss. */
#define _GNU_SOURCE
#include "lock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PATIENT = 3, MANY = 24 };

static struct gp_lock lock;
static long turns, still_wanted, sum, tried;

static void sleep_for(long ns) {
    nanosleep(&(struct timespec){0, ns}, NULL);
}

static void *be_greedy(void *unused) {
    (void)unused;
    for (long wanted = 1; wanted;) {
        gp_lock(&lock);
        sleep_for(200 * 1000);
        wanted = still_wanted;
        gp_unlock(&lock);
    }
    return NULL;
}

static void *be_patient(void *unused) {
    (void)unused;
    for (long turn = 0; turn < turns; turn++) {
        gp_lock(&lock);
        still_wanted--;
        gp_unlock(&lock);
        sleep_for(1000);
    }
    return NULL;
}

static void *count(void *unused) {
    (void)unused;
    for (long turn = 0; turn < 100 * turns; turn++) {
        if (turn % 8 || !gp_trylock(&lock))
            gp_lock(&lock);
        else
            tried++;
        sum++;
        if (turn % 512 == 0)
            sleep_for(1000);
        gp_unlock(&lock);
    }
    return NULL;
}

static void run(void *(*first)(void *), void *(*others)(void *), int how_many) {
    pthread_t thread[MANY];
    for (int i = 0; i < how_many; i++)
        pthread_create(&thread[i], NULL, i ? others : first, NULL);
    for (int i = 0; i < how_many; i++)
        pthread_join(thread[i], NULL);
}

int main(int argc, char **argv) {
    turns = argc > 1 ? atol(argv[1]) : 50;
    still_wanted = turns * PATIENT;
    run(be_greedy, be_patient, 1 + PATIENT);
    run(count, count, MANY);
    if (sum != 100 * turns * MANY || lock.word.whole)
        return fprintf(stderr, "sum %ld, word %x\n", sum, (unsigned)lock.word.whole), 1;
    return printf("%ld by trying\n", tried) < 0;
}
