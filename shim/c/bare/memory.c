// SPDX-License-Identifier: Apache-2.0
// Memory for programs that live for milliseconds: small pieces lie one after the other and are never reused,
// large ones are mappings, which grow in place.
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SMALL = 8 << 10, ARENA = 128 << 10, PAGE = 64 << 10 };

struct piece {
    size_t room, mapped; // mapped: bytes of the mapping that it is, 0 for a small one
    char at[];
};

static _Alignas(16) char arena[ARENA];
static size_t used;

static struct piece *small_piece(size_t n) {
    size_t whole = (sizeof(struct piece) + n + 15) & ~(size_t)15;
    if (whole > ARENA - used)
        return NULL;
    struct piece *piece = (struct piece *)(arena + used);
    used += whole;
    *piece = (struct piece){.room = whole - sizeof *piece};
    return piece;
}

static struct piece *mapped_piece(struct piece *old, size_t n) {
    if (n > SIZE_MAX / 2)
        return NULL;
    size_t whole = (sizeof(struct piece) + n + PAGE - 1) & ~(size_t)(PAGE - 1);
    long at = old != NULL ? syscall(SYS_mremap, old, old->mapped, whole, MREMAP_MAYMOVE, 0L)
                          : syscall(SYS_mmap, 0L, whole, (long)(PROT_READ | PROT_WRITE),
                                    (long)(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L);
    if (at == -1)
        return NULL;
    struct piece *piece = (struct piece *)at;
    *piece = (struct piece){.room = whole - sizeof *piece, .mapped = whole};
    return piece;
}

static struct piece *piece_of(void *at) {
    return (struct piece *)((char *)at - offsetof(struct piece, at));
}

void *realloc(void *at, size_t n) {
    struct piece *old = at == NULL ? NULL : piece_of(at);
    if (old != NULL && n <= old->room)
        return at;
    bool moves = old != NULL && old->mapped > 0; // with its contents, and is then no longer where it was
    struct piece *made = moves || n > SMALL ? NULL : small_piece(n);
    if (made == NULL)
        made = mapped_piece(moves ? old : NULL, n);
    if (made == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (old != NULL && !moves)
        memcpy(made->at, old->at, old->room);
    return made->at;
}

// The compiler makes it of realloc(NULL, n).
void *malloc(size_t n) {
    return realloc(NULL, n);
}

void free(void *at) {
    if (at != NULL && piece_of(at)->mapped > 0)
        syscall(SYS_munmap, piece_of(at), piece_of(at)->mapped);
}
