// SPDX-License-Identifier: Apache-2.0
// gpuportion-runtime: the OCI runtime that engines call. Asks the daemon to edit the config.json of a
// container that is about to be created and asks for a GPU; then, and for everything else at once, becomes
// runc or crun.
//
// It replaces itself by execve and never forks: the engine's parent-death signal, its wait and the exit code
// stay what they were. Inherited descriptors belong to the engine and the container; its own ones are
// close-on-exec. It is static, so that no LD_PRELOAD of an engine's environment gets into it.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "argv.h"
#include "bundle.h"
#include "checkpoint.h"
#include "decimal.h"
#include "image_drivers.h"
#include "image_mounts.h"
#include "image_preload.h"
#include "image_root.h"
#include "json_scan.h"
#include "json_write.h"
#include "low_level.h"
#include "real_path.h"
#include "report.h"
#include "request_keys.h"
#include "sentence.h"
#include "wire.h"

extern char **environ;

enum { WAIT_S = 40 }; // making a MIG instance takes time; so does a daemon that its socket unit starts

struct node {
    struct bytes run_dir, socket;
    const char *runtime; // what this process becomes
    int wait_ms;
};

static void find_node(struct node *node) {
    const char *moved = getenv("GPUPORTION_RUN_DIR");
    bytes_text(&node->run_dir, moved != NULL && *moved != '\0' ? moved : "/run/gpuportion");
    bytes_add(&node->socket, node->run_dir.at, node->run_dir.n);
    bytes_text(&node->socket, "/gpuportiond.sock");
    node->wait_ms = 1000 * decimal(getenv("GPUPORTION_WAIT_S"), WAIT_S, WAIT_S); // only ever shorter
}

// The daemon leaves this file while the administrator's policy gives a portion to those who ask for none.
static bool has_default_grant(const struct node *node) {
    struct bytes path = {0};
    struct stat is;
    bytes_add(&path, node->run_dir.at, node->run_dir.n);
    bytes_text(&path, "/default-grant");
    bool has = lstat(bytes_c(&path), &is) == 0 && S_ISREG(is.st_mode) && is.st_uid == 0;
    bytes_free(&path);
    return has;
}

static void begin_head(struct bytes *head, const char *op, const struct command *command) {
    bytes_text(head, "{");
    json_put_number(head, "v", 1);
    json_put_text(head, "op", op);
    json_put_text(head, "root", command->root != NULL ? command->root : "");
    json_put_text(head, "id", command->id);
}

// What the daemon must know of an image that it may not see.
struct image {
    struct bytes preload, drivers, mounts;
};

static bool look_at_image(const struct bundle *bundle, struct image *image, struct bytes *problem) {
    int root = image_root_open(bundle);
    if (root < 0) {
        bytes_text(&image->drivers, "[]");
        bytes_text(&image->mounts, "[]");
        return true;
    }
    image_mounts_find(bundle, root, &image->mounts);
    bool good = image_preload_read(root, &image->preload, problem) &&
                image_drivers_find(bundle, root, &image->drivers, problem);
    close(root);
    return good;
}

static struct wire_request create_request(struct node *node, const struct command *command,
                                          const struct bundle *bundle, struct image *image) {
    struct wire_request request = {
        .path = bytes_c(&node->socket), .pass = -1, .wait_ms = node->wait_ms, .absent_ms = WIRE_ABSENT_MS};
    struct bytes absolute = {0};
    real_path(&absolute, bundle->path);
    begin_head(&request.head, "create", command);
    json_put_text(&request.head, "verb", command->verb_name);
    json_put_text(&request.head, "bundle", bytes_c(&absolute));
    json_put_text(&request.head, "runtime", node->runtime);
    json_put_number(&request.head, "preload_bytes", (long long)image->preload.n);
    bytes_text(&request.head, ",\"image_drivers\":");
    bytes_add(&request.head, image->drivers.at, image->drivers.n);
    bytes_text(&request.head, ",\"image_mounts\":");
    bytes_add(&request.head, image->mounts.at, image->mounts.n);
    request.body[0] = (struct iovec){bundle->text.at, bundle->text.n};
    request.body[1] = (struct iovec){image->preload.at, image->preload.n};
    bytes_free(&absolute);
    return request;
}

static bool apply(const struct command *command, struct bundle *bundle, const struct bytes *answer,
                  struct bytes *problem) {
    struct json config;
    if (answer->n == 0)
        return true;
    if (command->verb == VERB_RESTORE && checkpoint_has_locks(command->images)) {
        sentence_why(problem, "GP302",
                     WHY("a process in the checkpoint had opened CUDA (it has a lock of that kind) and would "
                         "come back without its account. Start the container anew"));
        return false;
    }
    if (!json_document((struct json){answer->at, answer->at + answer->n}, &config) || *config.at != '{') {
        sentence_why(problem, "GP302",
                     WHY("the gpuportion daemon answered with something that is no config.json"));
        return false;
    }
    return bundle_replace(bundle, answer->at, answer->n, problem);
}

static bool ask_daemon(const struct command *command, struct node *node, struct bundle *bundle,
                       struct bytes *problem) {
    struct image image = {0};
    struct wire_answer answer;
    if (!look_at_image(bundle, &image, problem))
        return false;
    struct wire_request request = create_request(node, command, bundle, &image);
    enum wire_end end = wire_ask(&request, &answer);
    bool good = sentence_of_answer(problem, request.path, end, &answer) &&
                apply(command, bundle, &answer.body, problem);
    bytes_free(&request.head);
    bytes_free(&answer.body);
    bytes_free(&image.preload);
    bytes_free(&image.drivers);
    bytes_free(&image.mounts);
    return good;
}

// True where the runtime may go on. A line that it will refuse itself is left to it.
static bool prepare(const struct command *command, struct node *node, struct bytes *problem) {
    struct bundle bundle = {0};
    if (command->help || command->broken || command->id == NULL)
        return true;
    switch (bundle_read(&bundle, command->bundle, command->config, problem)) {
    case BUNDLE_REFUSED:
        return false;
    case BUNDLE_ABSENT:
        if (!command->unsure)
            return true;
        sentence_why(problem, "GP302",
                     WHY("the command line has an option that gpuportion-runtime does not know, and "
                         "no config.json was found where it seems to name the bundle"));
        return false;
    case BUNDLE_READ:
        break;
    }
    if (!request_keys_possible(bundle.text.at, bundle.text.n) && !has_default_grant(node))
        return true;
    if (*node->run_dir.at == '/')
        return ask_daemon(command, node, &bundle, problem);
    sentence_why(
        problem, "GP302",
        WHY("GPUPORTION_RUN_DIR is \"", bytes_c(&node->run_dir), "\", which is not an absolute path"));
    return false;
}

static void note_delete(const struct command *command, struct node *node) {
    if (command->id == NULL || *node->run_dir.at != '/')
        return;
    struct wire_request request = {.path = bytes_c(&node->socket), .pass = -1};
    begin_head(&request.head, "deleted", command);
    wire_note(&request);
    bytes_free(&request.head);
}

static void say_version(void) {
    static const char line[] = "gpuportion-runtime " GPUPORTION_VERSION "\n";
    ssize_t ignored = write(STDOUT_FILENO, line, sizeof line - 1);
    (void)ignored;
}

static bool before_runtime(const struct command *command, const char *runtime, struct bytes *problem) {
    struct node node = {.runtime = runtime};
    find_node(&node);
    if (command->version)
        say_version();
    else if (command->verb == VERB_DELETE)
        note_delete(command, &node);
    else if (command->verb > VERB_OTHER)
        return prepare(command, &node, problem);
    return true;
}

int main(int argc, char **argv) {
    if (argc < 1)
        return 1;
    struct bytes path = {0}, problem = {0};
    bool found = low_level_find(getenv("GPUPORTION_RUNTIME"), LOW_LEVEL_CONFIG, &path, &problem);
    enum dialect dialect = low_level_dialect(bytes_c(&path));
    struct command command = argv_parse(argc, argv, dialect);
    if (found && before_runtime(&command, bytes_c(&path), &problem)) {
        argv[0] = path.at;
        execve(path.at, argv, environ);
        sentence_why(&problem, "GP310", WHY(path.at, " could not be started"));
    }
    report(&command, dialect, &problem);
    return 1;
}
