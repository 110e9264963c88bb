// SPDX-License-Identifier: Apache-2.0
/* Writes a policy and a ledger into a folder: what the daemon does for a container, for tests of the
 * libraries alone. cap_pages FOLDER LIBCUDA LIBNVML UUID:LIMIT:CONTEXT...     (UUID: 32 hexadecimal digits;
 * bytes) */
#include "region.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int save(const char *folder, const char *name, const void *bytes, size_t length, off_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length || ftruncate(fd, size)) {
        perror(path);
        return 1;
    }
    return close(fd);
}

static int parse(const char *text, gp_policy_gpu *gpu) {
    for (int i = 0; i < 16; i++, text += 2)
        if (sscanf(text, "%2hhx", &gpu->uuid[i]) != 1)
            return 0;
    return sscanf(text, ":%lu:%lu", &gpu->limit, &gpu->context) == 2;
}

int main(int argc, char **argv) {
    static union {
        gp_policy policy;
        char page[2048 + GP_MAX_GPUS * sizeof(gp_policy_cells)];
    } page;
    gp_policy *policy = &page.policy;
    gp_ledger_file *ledger = calloc(1, sizeof *ledger);
    if (argc < 5 || argc > 4 + GP_MAX_GPUS || !ledger)
        return 2;
    policy->magic = GP_POLICY_MAGIC;
    policy->version = GP_LAYOUT_VERSION;
    policy->gpus = (uint32_t)argc - 4;
    snprintf(policy->container, sizeof policy->container, "test");
    snprintf(policy->libcuda, sizeof policy->libcuda, "%s", argv[2]);
    snprintf(policy->libnvml, sizeof policy->libnvml, "%s", argv[3]);
    if (snprintf(policy->ledger, sizeof policy->ledger, "%s/ledger", argv[1]) >= (int)sizeof policy->ledger)
        return 2;
    for (uint32_t i = 0; i < policy->gpus; i++)
        if (!parse(argv[4 + i], &policy->gpu[i]))
            return 2;
    gp_ledger_format(ledger, policy->gpus);
    return save(argv[1], "policy", &page, sizeof page, sizeof page) ||
           save(argv[1], "ledger", ledger, sizeof *ledger, (off_t)gp_ledger_size(policy->gpus));
}
