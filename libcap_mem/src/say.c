// SPDX-License-Identifier: Apache-2.0
/* The lines that a refusal writes to stderr, without stdio: text is put together on the stack and written by
 * one system call. Knows numbers and names, nothing of how they came about. */
#include "say.h"

#include <errno.h>
#include <signal.h>

#include "raw.h"

enum { MEBIBYTE = 1 << 20, LINE = 512, SHOWN = 4, COMM = 16 };

struct line {
    unsigned length;
    char text[LINE];
};

static void put(struct line *line, const char *text) {
    while (*text && line->length < LINE - 1)
        line->text[line->length++] = *text++;
}

static void put_number(struct line *line, uint64_t number) {
    char digits[21];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    put(line, at);
}

/* Sizes that are asked for are shown rounded up, so that no request reads as 0 MiB. */
static void put_mebibytes(struct line *line, uint64_t bytes) {
    put_number(line, bytes / MEBIBYTE + (bytes % MEBIBYTE != 0));
}

/* Where nobody reads stderr any more, a write would end the process by SIGPIPE: that is held back for this
 * thread and, unless another one was waiting already, taken away. */
static void flush(struct line *line) {
    const uint64_t broken_pipe = 1ull << (SIGPIPE - 1);
    const struct timespec at_once = {0};
    uint64_t mask = 0, waiting = 0;
    line->text[line->length++] = '\n';
    gp_syscall(SYS_rt_sigpending, (long)&waiting, sizeof waiting, 0, 0, 0, 0);
    gp_syscall(SYS_rt_sigprocmask, SIG_BLOCK, (long)&broken_pipe, (long)&mask, sizeof mask, 0, 0);
    if (gp_write(2, line->text, line->length) == -EPIPE && !(waiting & broken_pipe))
        gp_syscall(SYS_rt_sigtimedwait, (long)&broken_pipe, 0, (long)&at_once, sizeof broken_pipe, 0, 0);
    gp_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, sizeof mask, 0, 0);
}

/* The command of a process of our PID namespace: what a stranger named it, so nothing but plain characters.
 */
static void put_command(struct line *line, int pid) {
    struct line path = {0};
    char name[COMM];
    put(&path, "/proc/");
    put_number(&path, (uint64_t)pid);
    put(&path, "/comm");
    path.text[path.length] = 0;
    int fd = gp_open(path.text, O_RDONLY);
    long got = fd < 0 ? 0 : gp_read(fd, name, sizeof name - 1);
    if (fd >= 0)
        gp_close(fd);
    for (long i = 0; i < got && name[i] != '\n'; i++)
        put(line, name[i] >= ' ' && name[i] < 127 ? (char[]){name[i], 0} : "?");
    put(line, got > 0 ? " " : "");
}

static void put_holders(struct line *line, const struct gp_ledger *ledger, unsigned gpu) {
    struct gp_process holder[SHOWN + 1];
    int count = gp_processes(ledger, gpu, holder, SHOWN + 1);
    for (int i = 0; i < count && i < SHOWN; i++) {
        put(line, i ? ", pid " : " (pid ");
        put_number(line, (uint64_t)holder[i].pid);
        put(line, " ");
        put_command(line, holder[i].pid);
        put_number(line, holder[i].bytes / MEBIBYTE);
    }
    put(line, count > SHOWN ? ", …)" : count > 0 ? ")" : "");
}

/* True at most once a second; `silent` is how many were kept back since. */
static int may_speak(uint64_t *silent) {
    static int64_t spoke = -1;
    static uint64_t kept_back;
    int64_t now = gp_seconds(), last = __atomic_load_n(&spoke, __ATOMIC_RELAXED);
    if (now == last ||
        !__atomic_compare_exchange_n(&spoke, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __atomic_fetch_add(&kept_back, 1, __ATOMIC_RELAXED);
        return 0;
    }
    *silent = __atomic_exchange_n(&kept_back, 0, __ATOMIC_RELAXED);
    return 1;
}

static void put_silent(struct line *line, uint64_t silent) {
    if (!silent)
        return;
    put(line, " (");
    put_number(line, silent);
    put(line, " more like it were not shown)");
}

void gp_say_refused(const struct gp_ledger *ledger, unsigned gpu, uint64_t bytes) {
    uint64_t silent;
    if (!may_speak(&silent))
        return;
    struct line line = {0};
    put(&line, "GP201 gpuportion: ");
    put_mebibytes(&line, bytes);
    put(&line, " MiB refused: ");
    put_mebibytes(&line, gp_used(ledger, gpu));
    put(&line, " of this container's ");
    put_number(&line, gp_limit(ledger, gpu) / MEBIBYTE);
    put(&line, " MiB are in use");
    put_holders(&line, ledger, gpu);
    put(&line, "; CUDA reports out of memory.");
    put_silent(&line, silent);
    flush(&line);
}

void gp_say_unusable(uint64_t bytes, const char *why) {
    uint64_t silent;
    if (!may_speak(&silent))
        return;
    struct line line = {0};
    put(&line, "GP202 gpuportion: ");
    put_mebibytes(&line, bytes);
    put(&line, " MiB refused: ");
    put(&line, why);
    put(&line, "; CUDA reports out of memory.");
    put_silent(&line, silent);
    flush(&line);
}

void gp_say_closed(const char *what, const char *detail) {
    static int said;
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
        return;
    struct line line = {0};
    put(&line, "GP203 gpuportion: no GPU is to be had in this process: ");
    put(&line, what);
    put(&line, detail);
    put(&line, ". Start it with `gpuportion run` or `gpuportion exec`, or under --runtime=gpuportion.");
    flush(&line);
}
