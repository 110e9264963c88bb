// SPDX-License-Identifier: Apache-2.0
/* The table of blocks against a plain array that says what it must hold: random puts, takes, joins and leaves
 * of few keys (so that they collide, move and come again), by one thread; then by several, each with keys of
 * its own; then a fork, whose child must find nothing.   blocks_storm SEED ROUNDS */
#include "blocks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEYS = 3000, THREADS = 4 };

struct model {
    unsigned seed;
    long rounds;
    uint64_t base, held[KEYS];
    uint32_t refs[KEYS];
};

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                          \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static void plain(struct model *m, unsigned i, int put) {
    struct gp_block block = {.key = gp_key(GP_POINTER, m->base + 512 * i),
                             .bytes = 1 + (unsigned)rand_r(&m->seed)};
    if (put) {
        MUST(gp_blocks_put(&block));
        m->held[i] = block.bytes;
        return;
    }
    struct gp_block was = {0};
    MUST(gp_blocks_take(block.key, &was) == (m->held[i] != 0));
    MUST(was.bytes == m->held[i]);
    m->held[i] = 0;
}

static void counted(struct model *m, unsigned i, int join) {
    struct gp_block block = {.key = gp_key(GP_SLAB, m->base + 512 * i), .other = m->base, .bytes = i}, was;
    if (join) {
        MUST(gp_blocks_join(&block) == ++m->refs[i]);
        return;
    }
    MUST(gp_blocks_leave(block.key, &was) == (m->refs[i] != 0));
    if (m->refs[i])
        MUST(was.refs == m->refs[i]-- && was.bytes == i);
}

static int of_base(const struct gp_block *block, const void *base) {
    return block->other == *(const uint64_t *)base;
}
static void count(const struct gp_block *block, void *sum) {
    *(uint64_t *)sum += block->refs;
}

static void *storm(void *with) {
    struct model *m = with;
    for (long n = 0; n < m->rounds; n++) {
        unsigned i = (unsigned)rand_r(&m->seed) % KEYS, what = (unsigned)rand_r(&m->seed) % 4;
        if (what & 1)
            plain(m, i, what & 2);
        else
            counted(m, i, what & 2);
    }
    uint64_t swept = 0, expected = 0;
    for (unsigned i = 0; i < KEYS; i++)
        expected += m->refs[i];
    gp_blocks_sweep(of_base, &m->base, count, &swept);
    MUST(swept == expected);
    for (unsigned i = 0; i < KEYS; i++) {
        struct gp_block is = {0};
        MUST(!gp_blocks_see(gp_key(GP_SLAB, m->base + 512 * i), &is));
        MUST(gp_blocks_see(gp_key(GP_POINTER, m->base + 512 * i), &is) == (m->held[i] != 0));
        MUST(is.bytes == m->held[i]);
    }
    return NULL;
}

int main(int argc, char **argv) {
    static struct model model[THREADS + 1];
    pthread_t thread[THREADS];
    for (unsigned t = 0; t <= THREADS; t++)
        model[t] = (struct model){.seed = (unsigned)atoi(argv[1]) + t,
                                  .rounds = argc > 2 ? atol(argv[2]) : 100000,
                                  .base = (uint64_t)(t + 1) << 40};
    storm(&model[THREADS]);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_create(&thread[t], NULL, storm, &model[t]);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(thread[t], NULL);
    struct gp_block block = {.key = gp_key(GP_POINTER, 1 << 20), .bytes = 1};
    MUST(gp_blocks_put(&block));
    pid_t child = fork();
    if (!child)
        _exit(gp_blocks_see(block.key, &block) || !gp_blocks_put(&block) ||
              !gp_blocks_take(block.key, &block));
    int status;
    waitpid(child, &status, 0);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
