// SPDX-License-Identifier: Apache-2.0
// gpuportion-hook: what the OCI runtime calls when a container has been created (confirm); where it refuses,
// the container does not start. Runs as root outside of the container, with nothing of the container's:
// static, its environment given by the spec, its working directory and descriptors dropped first. It never
// enters the container's filesystem.
//
//   gpuportion-hook confirm --socket S --token T --id ID [--timeout-ms N]
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "decimal.h"
#include "json_write.h"
#include "sentence.h"
#include "state.h"
#include "wire.h"

enum { CONFIRM_MS = 40000 };
enum { STATE_MAX = 4 << 20 }; // annotations are in it

struct options {
    const char *socket, *token, *id, *timeout_ms;
};

static void close_inherited(void) {
    if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
        return;
    for (int fd = 3; fd < 65536; fd++)
        close(fd);
}

static void complain(struct bytes *text) {
    bytes_text(text, "\n");
    ssize_t ignored = write(STDERR_FILENO, text->at, text->n);
    (void)ignored;
}

static const char **field_of(struct options *options, const char *name) {
    struct {
        const char *name;
        const char **field;
    } fields[] = {
        {"--socket", &options->socket},
        {"--token", &options->token},
        {"--id", &options->id},
        {"--timeout-ms", &options->timeout_ms},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].field;
    return NULL;
}

static bool take_options(int argc, char **argv, struct options *options) {
    for (int i = 2; i < argc; i += 2) {
        const char **field = field_of(options, argv[i]);
        if (field == NULL || i + 1 == argc)
            return false;
        *field = argv[i + 1];
    }
    return options->socket != NULL && options->token != NULL;
}

static bool read_state(struct bytes *state) {
    for (;;) {
        bytes_reserve(state, 4096);
        ssize_t got = read(STDIN_FILENO, state->at + state->n, state->room - state->n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        state->n += (size_t)got;
        if (state->n > STATE_MAX)
            return false;
    }
}

static bool ask_confirm(const struct options *options, int pid, int pidfd, int wait_ms,
                        struct bytes *problem) {
    struct wire_request r = {
        .path = options->socket, .pass = pidfd, .wait_ms = wait_ms, .absent_ms = WIRE_ABSENT_MS};
    struct wire_answer answer;
    bytes_text(&r.head, "{");
    json_put_number(&r.head, "v", 1);
    json_put_text(&r.head, "op", "confirm");
    json_put_text(&r.head, "token", options->token);
    json_put_number(&r.head, "pid", pid);
    return sentence_of_answer(problem, r.path, wire_ask(&r, &answer), &answer);
}

static bool confirm(const struct options *options, struct bytes *problem) {
    struct bytes text = {0};
    struct state state;
    if (!read_state(&text) || !state_parse(text.at, text.n, options->id, &state, problem)) {
        if (problem->n == 0)
            sentence_why(problem, "GP302", WHY("the OCI runtime gave its hook no readable state"));
        return false;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, state.pid, 0);
    if (pidfd >= 0)
        return ask_confirm(options, state.pid, pidfd, decimal(options->timeout_ms, CONFIRM_MS, CONFIRM_MS),
                           problem);
    sentence_why(problem, "GP302",
                 errno == ENOSYS ? WHY("its kernel has no pidfd_open (Linux 5.3; 5.10 is needed)")
                                 : WHY("the container's first process has ended already"));
    return false;
}

static int usage(void) {
    static const char text[] =
        "usage: gpuportion-hook confirm --socket S --token T --id ID [--timeout-ms N]\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    return 2;
}

int main(int argc, char **argv) {
    struct options options = {0};
    struct bytes problem = {0};
    if (chdir("/") != 0)
        return 1;
    close_inherited();
    if (argc < 2 || strcmp(argv[1], "confirm") != 0 || !take_options(argc, argv, &options))
        return usage();
    if (confirm(&options, &problem))
        return 0;
    complain(&problem);
    return 1;
}
