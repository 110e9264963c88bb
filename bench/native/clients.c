// SPDX-License-Identifier: Apache-2.0
// The daemon's clients, as many as wanted at once, with the frames and the code of the launcher and the hook.
// A container is a child that waits; killing it ends it. Prints numbers only. See bench/allocator.py.
//
//   bench_clients lives    SOCKET CONFIG NAME COUNT CLIENTS FOLDER
//       COUNT times create, confirm and end, until no more is in FOLDER than before: seconds
//   bench_clients pings    SOCKET CONFIG NAME COUNT CLIENTS
//       COUNT questions with nothing done: seconds
//   bench_clients creates | asks    SOCKET CONFIG NAME COUNT CLIENTS RATE
//       RATE creates, or pings, a second, whether or not earlier ones were answered: for each, milliseconds
//       from when it came, waiting for a free client included, to its answer; the life that follows does not
//       count
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "json_write.h"
#include "wire.h"

enum { WAIT_MS = 60000, TOKEN = 32, MOST_CLIENTS = 256 };

struct load {
    const char *socket, *name;
    struct bytes config;
    int count, clients;
    double rate;             // 0: each client asks as soon as it can
    bool (*job)(int number); // of one number; whether its end is to be timed
    atomic_int next;
    double began;
    double *took_ms;
    pid_t *containers;
};

static struct load load;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void read_file(const char *path, struct bytes *text) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = 1;
    while (fd >= 0 && got > 0) {
        bytes_reserve(text, 65536);
        got = read(fd, text->at + text->n, text->room - text->n);
        text->n += got > 0 ? (size_t)got : 0;
    }
    if (fd < 0 || got < 0)
        err(1, "%s", path);
    close(fd);
}

static int entries(const char *folder) {
    DIR *open = opendir(folder);
    if (open == NULL)
        err(1, "%s", folder);
    int n = -2;
    while (readdir(open) != NULL)
        n++;
    closedir(open);
    return n;
}

// One question, which must be answered well.
static void ask(struct wire_request *request, struct wire_answer *answer) {
    request->path = load.socket;
    request->wait_ms = WAIT_MS;
    enum wire_end end = wire_ask(request, answer);
    if (end != WIRE_ANSWERED)
        errx(1, "no answer: %d", end);
    if (answer->status != WIRE_OK)
        errx(1, "refused: %s", bytes_c(&answer->body));
    bytes_free(&request->head);
}

static void begin(struct wire_request *request, const char *operation) {
    *request = (struct wire_request){.pass = -1};
    bytes_text(&request->head, "{");
    json_put_number(&request->head, "v", 1);
    json_put_text(&request->head, "op", operation);
}

static bool ping(int number) {
    struct wire_request request;
    struct wire_answer answer;
    (void)number;
    begin(&request, "ping");
    ask(&request, &answer);
    bytes_free(&answer.body);
    return true;
}

// The hook's argument in the answered spec.
static void token_of(struct bytes *spec, char token[TOKEN + 1]) {
    static const char before[] = "\"--token\",\"";
    char *at = memmem(spec->at, spec->n, before, sizeof before - 1);
    if (at == NULL || at + sizeof before - 1 + TOKEN > spec->at + spec->n)
        errx(1, "the answered spec has no token");
    memcpy(token, at + sizeof before - 1, TOKEN);
    token[TOKEN] = 0;
}

static void create(int number, char token[TOKEN + 1]) {
    struct wire_request request;
    struct wire_answer answer;
    char id[64];
    snprintf(id, sizeof id, "%s-%d", load.name, number);
    begin(&request, "create");
    json_put_text(&request.head, "verb", "create");
    json_put_text(&request.head, "root", "/run/bench");
    json_put_text(&request.head, "id", id);
    json_put_text(&request.head, "bundle", "/bundle");
    json_put_number(&request.head, "preload_bytes", 0);
    request.body[0] = (struct iovec){load.config.at, load.config.n};
    ask(&request, &answer);
    token_of(&answer.body, token);
    bytes_free(&answer.body);
}

static void confirm_and_end(int number, const char *token) {
    struct wire_request request;
    struct wire_answer answer;
    pid_t pid = load.containers[number];
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        err(1, "pidfd_open");
    begin(&request, "confirm");
    json_put_text(&request.head, "token", token);
    json_put_number(&request.head, "pid", pid);
    request.pass = pidfd;
    ask(&request, &answer);
    bytes_free(&answer.body);
    kill(pid, SIGKILL);
    close(pidfd);
}

static bool life(int number) {
    char token[TOKEN + 1];
    create(number, token);
    load.took_ms[number] = now();
    confirm_and_end(number, token);
    return false;
}

static void *client(void *unused) {
    (void)unused;
    for (;;) {
        int number = atomic_fetch_add(&load.next, 1);
        if (number >= load.count)
            return NULL;
        double came = now();
        if (load.rate > 0) {
            double due = load.began + number / load.rate;
            struct timespec until = {(time_t)due, (long)((due - (double)(time_t)due) * 1e9)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            came = due;
        }
        double answered = load.job(number) ? now() : load.took_ms[number];
        load.took_ms[number] = (answered - came) * 1e3;
    }
}

static void start_containers(void) {
    pid_t parent = getpid();
    signal(SIGCHLD, SIG_IGN); // they leave nothing that would have to be waited for
    for (int i = 0; i < load.count; i++) {
        load.containers[i] = fork();
        if (load.containers[i] < 0)
            err(1, "fork");
        if (load.containers[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (getppid() == parent)
                pause();
            _exit(0);
        }
    }
}

static void all_at_once(void) {
    pthread_t threads[MOST_CLIENTS];
    load.began = now();
    for (int i = 0; i < load.clients; i++)
        if (pthread_create(&threads[i], NULL, client, NULL) != 0)
            errx(1, "no thread");
    for (int i = 0; i < load.clients; i++)
        pthread_join(threads[i], NULL);
}

// Of each in the order in which they came.
static void print_taken(void) {
    for (int i = 0; i < load.count; i++)
        printf("%.4f\n", load.took_ms[i]);
}

// Asked of the file system, the question costs the daemon nothing.
static void await_the_last_release(const char *folder, int before) {
    while (entries(folder) > before)
        usleep(1000);
}

static bool is(const char *one, const char *other) {
    return strcmp(one, other) == 0;
}

int main(int argc, char **argv) {
    if (argc < 7)
        errx(2,
             "usage: bench_clients lives|pings|creates|asks SOCKET CONFIG NAME COUNT CLIENTS [FOLDER|RATE]");
    const char *what = argv[1], *more = argc > 7 ? argv[7] : "";
    bool with_containers = is(what, "lives") || is(what, "creates"),
         paced = is(what, "creates") || is(what, "asks");
    load =
        (struct load){.socket = argv[2], .name = argv[4], .count = atoi(argv[5]), .clients = atoi(argv[6])};
    load.rate = paced ? atof(more) : 0;
    if (load.clients < 1 || load.clients > MOST_CLIENTS || load.count < 1 || (paced && load.rate <= 0))
        errx(2, "1 to %d clients, 1 request or more, more than 0 of them a second", MOST_CLIENTS);
    read_file(argv[3], &load.config);
    load.job = with_containers ? life : ping;
    load.took_ms = calloc((size_t)load.count, sizeof *load.took_ms);
    load.containers = calloc((size_t)load.count, sizeof *load.containers);
    if (with_containers)
        start_containers();
    int before = is(what, "lives") ? entries(more) : 0;
    all_at_once();
    if (is(what, "lives"))
        await_the_last_release(more, before);
    if (paced)
        print_taken();
    else
        printf("%.6f\n", now() - load.began);
}
