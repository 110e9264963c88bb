// SPDX-License-Identifier: Apache-2.0
// Reads a board's MIG profiles and says which instances a process sees. Makes and removes none: NVML does.
#include "mig.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

unsigned sim_driver(const struct sim_view *view) {
    return (unsigned)sim_number(view, "driver.version", 0); // up to its first point
}

// The next number of a row, and what stands behind it.
static unsigned next(const char **at) {
    unsigned value = 0;
    while (**at == ' ')
        (*at)++;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        value = value * 10 + (unsigned)(**at - '0');
    return value;
}

static void read_row(const char *at, struct sim_profile *out) {
    size_t n = strcspn(at, " ");
    n = n < sizeof out->name ? n : sizeof out->name - 1;
    memcpy(out->name, at, n);
    at += n;
    unsigned *const fields[] = {&out->index, &out->id, &out->compute, &out->slots, &out->mib, &out->sms};
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = next(&at);
    for (unsigned i = 0; i < SIM_ENGINES; i++)
        out->engine[i] = next(&at);
    out->most = next(&at);
    out->kind = (enum sim_kind)next(&at);
    out->driver = next(&at);
    while (*at && out->starts < SIM_STARTS)
        out->start[out->starts++] = next(&at);
}

bool sim_profile(const struct sim_view *view, unsigned device, unsigned row, struct sim_profile *out) {
    char key[40], text[128];
    snprintf(key, sizeof key, "mig.%u.%u", (unsigned)sim_number(view, "board.%u.profiles", device), row);
    sim_text(view, key, 0, text, sizeof text);
    *out = (struct sim_profile){.row = row};
    if (*text)
        read_row(text, out);
    return *text;
}

bool sim_has_mig(const struct sim_view *view, unsigned device) {
    struct sim_profile profile;
    if (!sim_number(view, "board.%u.mig", device))
        return false;
    for (unsigned row = 0; sim_profile(view, device, row, &profile); row++)
        if (profile.driver <= sim_driver(view))
            return true;
    return false;
}

unsigned sim_slots(const struct sim_view *view, unsigned device) {
    struct sim_profile profile;
    unsigned slots = 0;
    if (!sim_number(view, "board.%u.mig", device))
        return 0;
    for (unsigned row = 0; sim_profile(view, device, row, &profile); row++)
        slots = profile.slots > slots ? profile.slots : slots;
    return slots;
}

unsigned sim_compute_sms(const struct sim_view *view, unsigned device, const struct sim_profile *profile,
                         unsigned slices) {
    static const unsigned char has[8] = {[1] = 1 << 1,
                                         [2] = 1 << 1 | 1 << 2,
                                         [3] = 1 << 1 | 1 << 2 | 1 << 3,
                                         [4] = 1 << 1 | 1 << 2 | 1 << 4,
                                         [7] = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7};
    struct sim_profile smallest; // each board's first row is its plain profile of one slice
    if (slices == profile->compute)
        return profile->sms;
    if (slices > 7 || !(has[profile->compute & 7] >> slices & 1) || !sim_profile(view, device, 0, &smallest))
        return 0;
    return smallest.sms * slices;
}

void sim_compute_name(const struct sim_profile *profile, unsigned slices, char *out, size_t room) {
    if (slices == profile->compute)
        snprintf(out, room, "%s", profile->name);
    else
        snprintf(out, room, "%uc.%s", slices, profile->name);
}

void sim_uuid_text(const unsigned char *uuid, char out[48]) {
    char *at = out + sprintf(out, "MIG-");
    for (unsigned i = 0; i < 16; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

unsigned sim_cap_instance(unsigned device, unsigned gi) {
    return SIM_CAP_FIRST + (device * SIM_INSTANCES + gi) * (1 + SIM_COMPUTES);
}

unsigned sim_cap_compute(unsigned device, unsigned gi, unsigned ci) {
    return sim_cap_instance(device, gi) + 1 + ci;
}

// The kernel asks the container's device rules too, when asked whether a node can be read.
bool sim_cap_open(unsigned minor) {
    char node[48];
    snprintf(node, sizeof node, "/dev/nvidia-caps/nvidia-cap%u", minor);
    return !access(node, R_OK);
}

bool sim_compute_visible(const struct sim_view *view, unsigned device, unsigned gi, unsigned ci) {
    if (!atomic_load(&view->at->mig[device].current) ||
        !atomic_load(&sim_instance(view, device, gi)->serial) ||
        !atomic_load(&sim_compute(view, device, gi, ci)->serial))
        return false;
    return !view->container ||
           (sim_cap_open(sim_cap_instance(device, gi)) && sim_cap_open(sim_cap_compute(device, gi, ci)));
}

// A descriptor of its own: threads of one process exclude each other too, and a forked child holds none.
int sim_mig_lock(const struct sim_view *view) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SIM_CHANGE, .l_len = 1};
    int fd = open(view->path, O_RDWR | O_CLOEXEC);
    while (fd >= 0 && syscall(SYS_fcntl, fd, F_OFD_SETLKW, &lock))
        if (errno != EINTR) {
            close(fd);
            return -1;
        }
    return fd;
}
