// SPDX-License-Identifier: Apache-2.0
// Which devices this process sees: boards, and of boards in MIG mode their compute instances, one device
// each; of these CUDA_VISIBLE_DEVICES takes some. Drivers before 570 give a process one MIG device, and
// beside it nothing.
#include "../state/mig.h"
#include "driver.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_WITH_SEVERAL = 570, MOST = 64 };

static struct device all[MOST];
static unsigned count;

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// "GPU-" or "MIG-", and 32 hex digits with dashes; reads as many as are there.
static int parse_uuid(const char *text, unsigned char *bytes) {
    int digits = 0;
    for (text += 4; *text && *text != ',' && digits < 32; text++) {
        if (*text == '-')
            continue;
        int value = hex(*text);
        if (value < 0)
            return -1;
        bytes[digits / 2] = (unsigned char)(digits % 2 ? bytes[digits / 2] | value : value << 4);
        digits++;
    }
    return digits;
}

static bool uuid_begins(const CUuuid *uuid, const unsigned char *bytes, int digits) {
    if (memcmp(uuid->bytes, bytes, (size_t)digits / 2))
        return false;
    return digits % 2 == 0 || uuid->bytes[digits / 2] >> 4 == bytes[digits / 2] >> 4;
}

// ------- all

static struct device *add_board(unsigned number) {
    struct device *device = &all[count++];
    char uuid[64];
    *device = (struct device){.number = number, .board = number, .total = driver.view.capacity[number]};
    device->sms = (unsigned)sim_number(&driver.view, "board.%u.sms", number);
    sim_text(&driver.view, "board.%u.name", number, device->name, sizeof device->name);
    sim_text(&driver.view, "board.%u.uuid", number, uuid, sizeof uuid);
    if (strlen(uuid) > 4)
        parse_uuid(uuid, device->board_uuid.bytes);
    device->uuid = device->board_uuid;
    return device;
}

static void add_part(unsigned board, unsigned gi, unsigned ci) {
    const struct sim_view *view = &driver.view;
    struct device *device = add_board(board);
    struct sim_profile profile;
    char name[48];
    unsigned slices = sim_shape(atomic_load(&sim_compute(view, board, gi, ci)->shape)).size;
    sim_profile(view, board, sim_shape(atomic_load(&sim_instance(view, board, gi)->shape)).row, &profile);
    device->number = sim_account(board, gi);
    device->mig = true;
    device->gi = gi;
    device->ci = ci;
    device->total = profile.mib * MIB;
    device->sms = sim_compute_sms(view, board, &profile, slices);
    memcpy(device->uuid.bytes, sim_compute(view, board, gi, ci)->uuid, sizeof device->uuid.bytes);
    sim_compute_name(&profile, slices, name, sizeof name);
    size_t n = strlen(device->name);
    snprintf(device->name + n, sizeof device->name - n, " MIG %s", name);
}

static void add_parts(unsigned board) {
    for (unsigned gi = 0; gi < SIM_INSTANCES; gi++)
        for (unsigned ci = 0; ci < SIM_COMPUTES && count < MOST; ci++)
            if (sim_compute_visible(&driver.view, board, gi, ci))
                add_part(board, gi, ci);
}

static void find_all(void) {
    count = 0;
    for (unsigned i = 0; i < driver.view.visible && count < MOST; i++) {
        unsigned board = driver.view.device[i];
        if (atomic_load(&driver.view.at->mig[board].current))
            add_parts(board);
        else
            add_board(board);
    }
}

static bool one_alone(void) {
    return sim_driver(&driver.view) < FIRST_WITH_SEVERAL;
}

// What a process sees that asks for nothing: with an older driver, if there is any, the first MIG device.
static void leave_one(void) {
    for (unsigned i = 0; one_alone() && i < count; i++)
        if (all[i].mig) {
            driver.device[0] = all[i];
            driver.count = 1;
            return;
        }
    driver.count = count < SIM_DEVICES ? count : SIM_DEVICES;
    memcpy(driver.device, all, driver.count * sizeof *all);
}

// ------- CUDA_VISIBLE_DEVICES

static int find_index(const char *text) {
    unsigned index = 0;
    if (*text < '0' || *text > '9')
        return -1;
    for (; *text >= '0' && *text <= '9' && index < 1000; text++)
        index = index * 10 + (unsigned)(*text - '0');
    if (index >= driver.count)
        return -1;
    for (unsigned i = 0; i < count; i++)
        if (all[i].board == driver.device[index].board && all[i].gi == driver.device[index].gi &&
            all[i].ci == driver.device[index].ci)
            return (int)i;
    return -1;
}

// An older driver's name of a MIG device: MIG-GPU-<uuid>/<instance>/<compute instance>.
static int find_old_name(const char *text) {
    unsigned char bytes[16] = {0};
    size_t n = strcspn(text, ",");
    for (unsigned i = 0; i < count; i++) {
        char tail[32];
        size_t t = (size_t)snprintf(tail, sizeof tail, "/%u/%u", all[i].gi, all[i].ci);
        char uuid[64];
        if (!all[i].mig || n <= t || n - t >= sizeof uuid || memcmp(text + n - t, tail, t))
            continue;
        memcpy(uuid, text + 4, n - t - 4);
        uuid[n - t - 4] = 0;
        if (parse_uuid(uuid, bytes) == 32 && uuid_begins(&all[i].board_uuid, bytes, 32))
            return (int)i;
    }
    return -1;
}

// One entry: an index, or the beginning of a UUID that only one device has. -1: no such.
static int find_wanted(const char *text) {
    unsigned char bytes[16] = {0};
    int found = -1;
    bool mig = !strncmp(text, "MIG-", 4);
    if (!strncmp(text, "MIG-GPU-", 8))
        return find_old_name(text);
    if (!mig && strncmp(text, "GPU-", 4))
        return find_index(text);
    int digits = parse_uuid(text, bytes);
    for (unsigned i = 0; digits > 0 && i < count; i++)
        if (all[i].mig == mig && uuid_begins(&all[i].uuid, bytes, digits)) {
            if (found >= 0)
                return -1;
            found = (int)i;
        }
    return found;
}

// As the real driver reads it: the first entry that is wrong ends the list, and so does one named twice.
static void keep_wanted(const char *wanted) {
    static struct device kept[SIM_DEVICES];
    unsigned n = 0;
    uint64_t seen = 0;
    for (const char *entry = wanted; entry && n < SIM_DEVICES; entry = strchr(entry, ',')) {
        entry += entry != wanted;
        while (*entry == ' ')
            entry++;
        int i = find_wanted(entry);
        if (i < 0 || seen >> i & 1 || (n && one_alone() && (all[i].mig || kept[0].mig)))
            break;
        seen |= (uint64_t)1 << i;
        kept[n++] = all[i];
    }
    driver.count = n;
    memcpy(driver.device, kept, n * sizeof *kept);
}

void devices_find(void) {
    find_all();
    leave_one();
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (wanted)
        keep_wanted(wanted);
}

void devices_open(void) {
    struct sim_slot *slot = &driver.view.at->slot[driver.view.self];
    unsigned noted = 0;
    for (unsigned i = 0; i < driver.count; i++) {
        const struct device *device = &driver.device[i];
        unsigned place = device->mig ? sim_place(device->board, device->gi, device->ci) : device->board;
        if (device->mig)
            driver.view.capacity[device->number] = device->total;
        if (device->mig && noted < SIM_NOTED)
            atomic_store(&slot->place[noted++], place + 1);
        sim_use(&driver.view, place);
    }
}
