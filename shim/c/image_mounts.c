// SPDX-License-Identifier: Apache-2.0
#include "image_mounts.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "image_root.h"
#include "json_scan.h"
#include "json_write.h"

enum { STEPS = 8192, LINKS = 40, LONGEST = 4096 };

// An image says how long the way is, and the host pays for it: STEPS are for all destinations together.
struct walk {
    int root, steps, links;
    struct json mounts;
    const char *own; // the destination that is followed
};

static bool destination_of(struct json mount, struct bytes *out) {
    struct json value;
    out->n = 0;
    return json_member(mount, "destination", &value) && json_string(value, out) && out->n > 0 &&
           out->n < LONGEST && *bytes_c(out) == '/';
}

// Is another mount made at this place? What the image has there doesn't count then.
static bool is_mounted(const struct walk *w, const char *place) {
    struct json rest = w->mounts, mount;
    struct bytes at = {0};
    bool found = false;
    while (!found && json_next(&rest, &mount))
        found = destination_of(mount, &at) && strcmp(bytes_c(&at), place) == 0 && strcmp(place, w->own) != 0;
    bytes_free(&at);
    return found;
}

static void cut_last(struct bytes *path) {
    while (path->n > 0 && path->at[--path->n] != '/')
        ;
}

// The link's text before what was left to go; absolute, it begins at the root again.
static bool follow(struct walk *w, int link, struct bytes *at, struct bytes *left) {
    char target[LONGEST];
    struct bytes longer = {0};
    long n = syscall(SYS_readlinkat, link, "", target, sizeof target);
    if (n <= 0 || n >= (long)sizeof target || ++w->links > LINKS || left->n > LONGEST)
        return false;
    if (target[0] == '/')
        at->n = 0;
    bytes_add(&longer, target, (size_t)n);
    bytes_add(&longer, "/", 1);
    bytes_add(&longer, left->at, left->n);
    bytes_free(left);
    *left = longer;
    return true;
}

// One name further. False where the way can't be told.
static bool step(struct walk *w, const char *name, size_t n, struct bytes *at, struct bytes *left) {
    struct stat is;
    if (n == 0 || (n == 1 && name[0] == '.'))
        return true;
    if (n == 2 && name[0] == '.' && name[1] == '.') {
        cut_last(at);
        return true;
    }
    size_t before = at->n;
    bytes_add(at, "/", 1);
    bytes_add(at, name, n);
    int fd = ++w->steps > STEPS || at->n >= LONGEST || is_mounted(w, bytes_c(at))
                 ? -1
                 : image_entry(w->root, bytes_c(at));
    bool good = fd >= 0 && fstat(fd, &is) == 0;
    if (good && S_ISLNK(is.st_mode)) {
        at->n = before;
        good = follow(w, fd, at, left);
    }
    if (fd >= 0)
        close(fd);
    return good;
}

static bool resolve(struct walk *w, struct bytes *at) {
    struct bytes left = {0}, name = {0};
    bool good = true;
    bytes_text(&left, w->own);
    while (good && left.n > 0) {
        size_t n = strcspn(bytes_c(&left), "/"), gone = n + (n < left.n);
        name.n = 0;
        bytes_add(&name, left.at, n);
        memmove(left.at, left.at + gone, left.n - gone);
        left.n -= gone;
        good = step(w, bytes_c(&name), n, at, &left);
    }
    bytes_free(&left);
    bytes_free(&name);
    return good && at->n > 0;
}

void image_mounts_find(const struct bundle *b, int root, struct bytes *out) {
    struct walk w = {.root = root};
    struct json config, rest, mount;
    struct bytes own = {0};
    size_t begun = out->n + 1;
    bytes_text(out, "[");
    if (json_document((struct json){b->text.at, b->text.at + b->text.n}, &config) &&
        json_member(config, "mounts", &rest))
        for (w.mounts = rest; w.steps <= STEPS && json_next(&rest, &mount);) {
            struct bytes at = {0};
            w.own = destination_of(mount, &own) ? bytes_c(&own) : "";
            w.links = 0;
            if (*w.own != '\0' && resolve(&w, &at) && strcmp(bytes_c(&at), w.own) != 0) {
                bytes_text(out, out->n > begun ? ",{" : "{");
                json_put_text(out, "name", w.own);
                json_put_text(out, "path", bytes_c(&at));
                bytes_text(out, "}");
            }
            bytes_free(&at);
        }
    bytes_text(out, "]");
    bytes_free(&own);
}
