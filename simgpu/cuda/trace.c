// SPDX-License-Identifier: Apache-2.0
// A line per driver call, into the file that GPUPORTION_SIM_TRACE names ("-": stderr): the function and the
// object that called it. Reads the setting once, when the library is loaded; off, a call pays nothing for it.
#include "driver.h"
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int out = -1;

__attribute__((constructor)) void trace_open(void) {
    const char *path = secure_getenv("GPUPORTION_SIM_TRACE");
    if (!path || !*path)
        return;
    out = strcmp(path, "-") ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : 2;
    if (out >= 0)
        atomic_fetch_or(&gate, GATE_TRACED);
}

struct search {
    uintptr_t address;
    const char *name;
};

static int look(struct dl_phdr_info *info, UNUSED size_t size, void *data) {
    struct search *search = data;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        bool within = search->address >= at && search->address < at + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && within) {
            search->name = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

// One write a line, so that lines of several threads and processes stay whole.
void trace_call(const char *name, const void *caller) {
    if (out < 0)
        return;
    char line[256];
    struct search search = {(uintptr_t)caller, ""};
    dl_iterate_phdr(look, &search);
    const char *slash = strrchr(search.name, '/');
    int n = snprintf(line, sizeof line, "%s %s\n", name,
                     slash          ? slash + 1
                     : *search.name ? search.name
                                    : "main");
    if (n > 0 && (size_t)n < sizeof line && write(out, line, (size_t)n) < 0)
        out = -1;
}
