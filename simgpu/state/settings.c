// SPDX-License-Identifier: Apache-2.0
// Finds and opens the state file and reads its text. Its lines stay where they are as long as the file lives,
// only values change (simgpu/sickness.py): so where each one is, is looked up once. Knows nothing of slots
// and charges.
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char in_container[] = "/dev/gpuportion-sim";
static const char on_host[] = "/run/gpuportion-sim/state";

static unsigned hash(const char *name, size_t n) {
    uint32_t mixed = 2166136261u;
    for (size_t i = 0; i < n; i++)
        mixed = (mixed ^ (unsigned char)name[i]) * 16777619u;
    return mixed % SIM_LINES;
}

// The first free place from the one that its key leads to. No line of the text is at 0, which says free.
static bool note_line(struct sim_view *view, size_t at, size_t n) {
    if (view->lines++ >= SIM_LINES / 2)
        return false;
    unsigned place = hash(view->at->text + at, n);
    while (view->line[place])
        place = (place + 1) % SIM_LINES;
    view->line[place] = (uint16_t)at;
    return true;
}

static bool note_lines(struct sim_view *view) {
    const char *text = view->at->text, *end = text + SIM_TEXT;
    const char *line = memchr(text, '\n', SIM_TEXT);
    while (line && ++line < end && *line) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        const char *space = next ? memchr(line, ' ', (size_t)(next - line)) : NULL;
        if (space && !note_line(view, (size_t)(line - text), (size_t)(space - line)))
            return false;
        line = next;
    }
    return true;
}

static const char *find_value(const struct sim_view *view, const char *key, unsigned device) {
    char name[64];
    size_t n = (size_t)snprintf(name, sizeof name, key, device);
    for (unsigned place = hash(name, n); view->line[place]; place = (place + 1) % SIM_LINES) {
        const char *line = view->at->text + view->line[place];
        if (n < (size_t)SIM_TEXT - view->line[place] && !memcmp(line, name, n) && line[n] == ' ')
            return line + n + 1;
    }
    return NULL;
}

uint64_t sim_number(const struct sim_view *view, const char *key, unsigned device) {
    const char *value = find_value(view, key, device);
    uint64_t number = 0;
    for (; value && *value >= '0' && *value <= '9'; value++)
        number = number * 10 + (uint64_t)(*value - '0');
    return number;
}

void sim_text(const struct sim_view *view, const char *key, unsigned device, char *out, size_t room) {
    const char *value = find_value(view, key, device);
    size_t n = value ? strcspn(value, "\n") : 0;
    if (n >= room)
        n = room - 1;
    if (n)
        memcpy(out, value, n);
    out[n] = 0;
}

// As with a real driver in a container: a device without its node is not there.
static void find_devices(struct sim_view *view, bool container) {
    unsigned all = (unsigned)sim_number(view, "devices", 0);
    view->visible = 0;
    for (unsigned i = 0; i < all && i < SIM_DEVICES; i++) {
        char node[32];
        view->capacity[i] = sim_number(view, "board.%u.total", i) - sim_number(view, "board.%u.reserved", i);
        snprintf(node, sizeof node, "/dev/nvidia%u", i);
        if (!container || !access(node, F_OK))
            view->device[view->visible++] = i;
    }
}

static int map(struct sim_view *view) {
    off_t size = lseek(view->probe, 0, SEEK_END);
    if (size < (off_t)sizeof *view->at)
        return EPROTO;
    view->at = mmap(NULL, sizeof *view->at, PROT_READ | PROT_WRITE, MAP_SHARED, view->probe, 0);
    if (view->at == MAP_FAILED)
        return errno;
    if (memcmp(view->at->text, SIM_VERSION, sizeof SIM_VERSION - 1) || !note_lines(view)) {
        munmap(view->at, sizeof *view->at);
        return EPROTO;
    }
    return 0;
}

int sim_open(struct sim_view *view) {
    const char *path = secure_getenv("GPUPORTION_SIM_STATE");
    bool container = false;
    if (!path || !*path) {
        container = !access(in_container, F_OK);
        path = container ? in_container : on_host;
    }
    view->life = view->self = -1;
    if (snprintf(view->path, sizeof view->path, "%s", path) >= (int)sizeof view->path)
        return ENAMETOOLONG;
    view->probe = open(path, O_RDWR | O_CLOEXEC);
    if (view->probe < 0)
        return errno;
    int error = map(view);
    if (error) {
        close(view->probe);
        return error;
    }
    view->container = container;
    find_devices(view, container);
    return 0;
}
