// SPDX-License-Identifier: Apache-2.0
/* What one grant costs: nanoseconds per gp_reserve + gp_release of 4 KiB, for threads of one process and for
 * as many processes. Prints one JSON object. Usage: ledger_bench [FOLDER] (default /dev/shm; the ledger lies
 * there for a moment). Under contention the figure is wall time per pair of all together. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ledger.h"

#define MOST 8
#define BATCH 64
#define NANOSECONDS 1000000000ull

static struct gp_ledger ledger;
static gp_policy policy = {.gpus = 1, .gpu = {{.limit = 1ull << 50}}};
static struct board { /* shared with children */
    int ready, go, stop;
    uint64_t pairs[MOST];
} *board;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NANOSECONDS + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void pairs(int count) {
    for (int i = 0; i < count; i++) {
        if (gp_reserve(&ledger, 0, 4096) != GP_GRANTED) {
            fprintf(stderr, "ledger_bench: refused: %s\n", gp_ledger_problem(&ledger));
            _exit(1);
        }
        gp_release(&ledger, 0, 4096);
    }
}

static void *work(void *slot) {
    uint64_t *count = slot;
    pairs(1);
    __atomic_add_fetch(&board->ready, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&board->go, __ATOMIC_ACQUIRE))
        usleep(500);
    while (!__atomic_load_n(&board->stop, __ATOMIC_RELAXED)) {
        pairs(BATCH);
        *count += BATCH;
    }
    return 0;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double measure_alone(void) {
    static double batch[2001];
    int n = sizeof batch / sizeof *batch;
    pairs(BATCH);
    for (int i = 0; i < n; i++) {
        uint64_t began = now();
        pairs(4 * BATCH);
        batch[i] = (double)(now() - began) / (4 * BATCH);
    }
    qsort(batch, (size_t)n, sizeof *batch, by_size);
    return batch[n / 2];
}

static void threads(int n, int first) {
    pthread_t id[MOST];
    for (int i = 0; i < n; i++)
        if (pthread_create(&id[i], 0, work, &board->pairs[first + i]))
            die("pthread_create");
    for (int i = 0; i < n; i++)
        pthread_join(id[i], 0);
}

static double measure(int processes, int threads_each) {
    int n = processes * threads_each;
    uint64_t sum = 0;
    *board = (struct board){0};
    fflush(stdout);
    for (int p = 0; p < processes; p++)
        if (!fork()) {
            threads(threads_each, p * threads_each);
            _exit(0);
        }
    while (__atomic_load_n(&board->ready, __ATOMIC_SEQ_CST) < n)
        usleep(500);
    uint64_t began = now();
    __atomic_store_n(&board->go, 1, __ATOMIC_RELEASE);
    usleep(500000);
    __atomic_store_n(&board->stop, 1, __ATOMIC_RELEASE);
    uint64_t took = now() - began;
    for (int status; wait(&status) > 0;)
        if (status)
            exit(1);
    for (int i = 0; i < n; i++)
        sum += board->pairs[i];
    return (double)took / (double)sum;
}

static void make_ledger(const char *folder) {
    char path[200];
    gp_ledger_file header = {0};
    snprintf(path, sizeof path, "%s/gpuportion-bench.%d", folder, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    gp_ledger_format(&header, 1);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)gp_ledger_size(1)) ||
        pwrite(fd, &header, sizeof header, 0) != (ssize_t)sizeof header)
        die(path);
    int failed = gp_ledger_attach(&ledger, path, 1, &policy);
    close(fd);
    if (failed)
        die("attach");
}

static void remove_ledger(void) {
    unlink(ledger.path);
}

int main(int argc, char **argv) {
    board = mmap(0, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        die("mmap");
    make_ledger(argc > 1 ? argv[1] : "/dev/shm");
    static const struct {
        const char *key;
        int processes, threads;
    } rows[] = {{"eight_threads_ns", 1, 8}, {"eight_processes_ns", 8, 1}};
    printf("{\"one_thread_ns\": %.1f", measure_alone());
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        printf(", \"%s\": %.1f", rows[i].key, measure(rows[i].processes, rows[i].threads));
    printf("}\n");
    remove_ledger(); /* the children end by _exit, the file by this */
    return 0;
}
