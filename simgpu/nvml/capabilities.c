// SPDX-License-Identifier: Apache-2.0
// The files of /proc/driver/nvidia/capabilities, as a fixture beside the state: they come and go with the
// instances. In a container, where the state lies elsewhere, and where nobody may write, there are none.
#include "mig.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 400 };

static bool folder_of(struct part part, bool compute, char *out) {
    const char *slash = strrchr(nvml.view.path, '/');
    char of_compute[16] = "";
    if (nvml.view.container || !slash)
        return false;
    if (compute)
        snprintf(of_compute, sizeof of_compute, "/ci%u", part.ci);
    return snprintf(out, ROOM, "%.*s/proc/driver/nvidia/capabilities/gpu%u/mig/gi%u%s",
                    (int)(slash - nvml.view.path), nvml.view.path, part.device, part.gi, of_compute) < ROOM;
}

void capability_add(struct part part, bool compute) {
    char folder[ROOM], file[ROOM + 16];
    if (!folder_of(part, compute, folder) || (mkdir(folder, 0555) && access(folder, F_OK)))
        return;
    snprintf(file, sizeof file, "%s/access", folder);
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    if (fd < 0)
        return;
    unsigned minor =
        compute ? sim_cap_compute(part.device, part.gi, part.ci) : sim_cap_instance(part.device, part.gi);
    dprintf(fd, "DeviceFileMinor: %u\nDeviceFileMode: %u\nDeviceFileModify: 1\n", minor, 0444u);
    close(fd);
}

void capability_remove(struct part part, bool compute) {
    char folder[ROOM], file[ROOM + 16];
    if (!folder_of(part, compute, folder))
        return;
    snprintf(file, sizeof file, "%s/access", folder);
    unlink(file);
    rmdir(folder);
}
