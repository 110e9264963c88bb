// SPDX-License-Identifier: Apache-2.0
/* One process that accounts, led by lines on stdin: one answer a line on stdout. What each word does is in
 * `words`. Usage: ledger_driver LEDGER POLICY */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ledger.h"

static struct gp_ledger ledger;
static const gp_policy *policy;

static const char *verdict(enum gp_verdict given) {
    static char text[200];
    if (given == GP_GRANTED)
        return "granted";
    if (given == GP_REFUSED)
        return "refused";
    snprintf(text, sizeof text, "failed: %s", gp_ledger_problem(&ledger));
    return text;
}

static void reserve(unsigned gpu, uint64_t bytes) {
    puts(verdict(gp_reserve(&ledger, gpu, bytes)));
}
static void charge(unsigned gpu, uint64_t bytes) {
    puts(verdict(gp_charge(&ledger, gpu, bytes)));
}

static void release(unsigned gpu, uint64_t bytes) {
    gp_release(&ledger, gpu, bytes);
    puts("done");
}

static void used(unsigned gpu, uint64_t unused) {
    (void)unused;
    printf("%lu\n", (unsigned long)gp_used(&ledger, gpu));
}

static void own(unsigned gpu, uint64_t unused) {
    (void)unused;
    printf("%lu\n", (unsigned long)gp_own(&ledger, gpu));
}

static void processes(unsigned gpu, uint64_t room) {
    struct gp_process found[GP_CELLS];
    int count = gp_processes(&ledger, gpu, found, (int)room);
    for (int i = 0; i < count; i++)
        printf("%d=%lu ", (int)found[i].pid, (unsigned long)found[i].bytes);
    puts("");
}

static void note(unsigned gpu, uint64_t bytes) {
    gp_note_refusal(&ledger, gpu, bytes, "cuMemAllocFromPoolAsync_with_a_long_name");
    puts("done");
}

/* A child that holds what it inherited, until it is killed. */
static void keep(unsigned gpu, uint64_t unused) {
    (void)gpu, (void)unused;
    pid_t child = fork();
    if (!child)
        for (;;)
            pause();
    printf("%d\n", (int)child);
}

/* A child that accounts for itself, and stays. */
static void fork_reserve(unsigned gpu, uint64_t bytes) {
    pid_t child = fork();
    if (!child) {
        reserve(gpu, bytes);
        fflush(stdout);
        for (;;)
            pause();
    }
}

/* A child that frees what its parent took, and ends. */
static void fork_release(unsigned gpu, uint64_t bytes) {
    pid_t child = fork();
    if (!child) {
        gp_release(&ledger, gpu, bytes);
        _exit(0);
    }
    waitpid(child, 0, 0);
    puts("done");
}

static void become(unsigned gpu, uint64_t unused) {
    (void)gpu, (void)unused;
    puts("done");
    fflush(stdout);
    execlp("sleep", "sleep", "1000", (char *)0);
}

static void close_all(unsigned gpu, uint64_t unused) {
    (void)gpu, (void)unused;
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    puts("done");
}

/* Pairs in a mode in which the kernel kills whoever makes a system call other than read, write and exit. */
static void strictly(unsigned gpu, uint64_t rounds) {
    static const char done[] = "no system call\n";
    fflush(stdout);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
        _exit(2);
    for (uint64_t i = 0; i < rounds; i++) {
        if (gp_reserve(&ledger, gpu, 4096) != GP_GRANTED)
            syscall(SYS_exit, 3);
        gp_own(&ledger, gpu);
        gp_release(&ledger, gpu, 4096);
    }
    if (write(1, done, sizeof done - 1) < 0)
        syscall(SYS_exit, 4);
    syscall(SYS_exit, 0);
}

static struct {
    unsigned gpu;
    uint64_t rounds;
} job;

static void *churn(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed;
    uint64_t held = 0;
    for (uint64_t i = 0; i < job.rounds; i++) {
        uint64_t bytes = 1 + rand_r(&state) % 4096;
        if (rand_r(&state) % 2 && gp_reserve(&ledger, job.gpu, bytes) == GP_GRANTED)
            held += bytes;
        else if (held) {
            uint64_t part = 1 + rand_r(&state) % held;
            gp_release(&ledger, job.gpu, part);
            held -= part;
        }
    }
    gp_release(&ledger, job.gpu, held);
    return 0;
}

static void threads(unsigned gpu, uint64_t rounds) {
    pthread_t id[12];
    job.gpu = gpu, job.rounds = rounds;
    for (uintptr_t i = 0; i < 12; i++)
        pthread_create(&id[i], 0, churn, (void *)(i + 1));
    for (int i = 0; i < 12; i++)
        pthread_join(id[i], 0);
    puts("done");
}

/* Memory taken by one thread and given back by another. */
static void *give_back(void *bytes) {
    gp_release(&ledger, 0, *(uint64_t *)bytes);
    return 0;
}

static void elsewhere(unsigned gpu, uint64_t bytes) {
    (void)gpu;
    for (int i = 0; i < 16; i++) {
        pthread_t id;
        uint64_t part = bytes / 16;
        pthread_create(&id, 0, give_back, &part);
        pthread_join(id, 0);
    }
    puts("done");
}

static void keeps_errno(unsigned gpu, uint64_t bytes) {
    struct gp_process found[4];
    errno = 4242;
    gp_reserve(&ledger, gpu, bytes);
    gp_reserve(&ledger, gpu, 1ull << 61);
    gp_charge(&ledger, gpu, 1);
    gp_used(&ledger, gpu);
    gp_processes(&ledger, gpu, found, 4);
    gp_note_refusal(&ledger, gpu, 1, "x");
    gp_release(&ledger, gpu, bytes + 1);
    printf("%d\n", errno);
}

static const struct {
    const char *name;
    void (*act)(unsigned gpu, uint64_t bytes);
} words[] = {
    {"reserve", reserve},
    {"charge", charge},
    {"release", release},
    {"used", used},
    {"own", own},
    {"processes", processes},
    {"note", note},
    {"keep", keep},
    {"fork-reserve", fork_reserve},
    {"fork-release", fork_release},
    {"become", become},
    {"close-all", close_all},
    {"strictly", strictly},
    {"threads", threads},
    {"elsewhere", elsewhere},
    {"errno", keeps_errno},
};

int main(int argc, char **argv) {
    char word[32];
    unsigned gpu;
    unsigned long bytes;
    if (argc != 3 || gp_policy_open(argv[2], &policy)) {
        printf("policy: %s\n", strerror(errno));
        return 1;
    }
    if (gp_ledger_attach(&ledger, argv[1], policy->gpus, policy)) {
        printf("ledger: %s\n", strerror(errno));
        return 1;
    }
    puts("ready");
    for (fflush(stdout); scanf("%31s %u %lu", word, &gpu, &bytes) == 3; fflush(stdout))
        for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
            if (!strcmp(words[i].name, word))
                words[i].act(gpu, bytes);
    return 0;
}
