// SPDX-License-Identifier: Apache-2.0
// The devices: handles, names, numbers, and what a healthy idle board answers.
#include "mig.h"
#include <stdio.h>
#include <stdlib.h>

API(nvmlDeviceGetCount_v2, unsigned *count) {
    ENTER();
    NEED(count);
    unsigned missing = (unsigned)sim_number(&nvml.view, "driver.missing", 0);
    *count = missing < nvml.view.visible ? nvml.view.visible - missing : 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetCount, unsigned *count) {
    return nvmlDeviceGetCount_v2(count);
}

API(nvmlDeviceGetHandleByIndex_v2, unsigned index, nvmlDevice_t *device) {
    ENTER();
    NEED(device && index < nvml.view.visible);
    *device = handle_of(index);
    return nvml_board(*device);
}

API(nvmlDeviceGetHandleByIndex, unsigned index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

API(nvmlDeviceGetHandleByUUID, const char *uuid, nvmlDevice_t *device) {
    ENTER();
    NEED(uuid && device);
    for (unsigned i = 0; i < nvml.view.visible; i++) {
        char ours[96];
        if (!nvml_setting(handle_of(i), "board.%u.uuid", ours, sizeof ours) && !strcmp(ours, uuid)) {
            *device = handle_of(i);
            return NVML_SUCCESS;
        }
    }
    *device = mig_called(uuid);
    return *device ? NVML_SUCCESS : NVML_NOT_FOUND;
}

API(nvmlDeviceGetIndex, nvmlDevice_t device, unsigned *index) {
    struct part part;
    ENTER();
    if (index && read_handle(MIG_DEVICE, device, &part))
        return mig_index(part, index);
    NEED_BOARD(device, index);
    *index = index_of(device);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetMinorNumber, nvmlDevice_t device, unsigned *minor) {
    ENTER_DEVICE(device, minor);
    *minor = number_of(device);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetName, nvmlDevice_t device, char *name, unsigned room) {
    struct part part;
    ENTER();
    if (name && read_handle(MIG_DEVICE, device, &part))
        return mig_name(part, name, room);
    NEED_BOARD(device, name);
    return nvml_setting(device, "board.%u.name", name, room);
}

API(nvmlDeviceGetUUID, nvmlDevice_t device, char *uuid, unsigned room) {
    struct part part;
    ENTER();
    if (uuid && read_handle(MIG_DEVICE, device, &part))
        return mig_uuid(part, uuid, room);
    NEED_BOARD(device, uuid);
    return nvml_setting(device, "board.%u.uuid", uuid, room);
}

unsigned board_number(nvmlDevice_t device, const char *key) {
    return (unsigned)sim_number(&nvml.view, key, number_of(device));
}

int nvml_pci(nvmlDevice_t device, struct pci_info *info) {
    *info = (struct pci_info){
        .domain = board_number(device, "board.%u.pci_domain"),
        .bus = board_number(device, "board.%u.pci_bus"),
        .identity = board_number(device, "board.%u.pci_identity"),
    };
    snprintf(info->legacy_id, sizeof info->legacy_id, "%04X:%02X:00.0", info->domain & 0xffff,
             info->bus & 0xff);
    snprintf(info->id, sizeof info->id, "%08X:%02X:00.0", info->domain, info->bus & 0xff);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetPciInfo_v3, nvmlDevice_t device, struct pci_info *info) {
    ENTER_DEVICE(device, info);
    return nvml_pci(device, info);
}

API(nvmlDeviceGetPciInfo_v2, nvmlDevice_t device, struct pci_info *info) {
    return nvmlDeviceGetPciInfo_v3(device, info);
}

static const char *skip_zeros(const char *text) {
    while (*text == '0')
        text++;
    return text;
}

// Domains are written with 4 or 8 digits, letters in either case.
API(nvmlDeviceGetHandleByPciBusId_v2, const char *id, nvmlDevice_t *device) {
    ENTER();
    NEED(id && device);
    for (unsigned i = 0; i < nvml.view.visible; i++) {
        struct pci_info info;
        nvmlDeviceGetPciInfo_v3(handle_of(i), &info);
        if (!strcasecmp(skip_zeros(id), skip_zeros(info.id))) {
            *device = handle_of(i);
            return NVML_SUCCESS;
        }
    }
    return NVML_NOT_FOUND;
}

API(nvmlDeviceGetHandleByPciBusId, const char *id, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(id, device);
}

API(nvmlDeviceGetCudaComputeCapability, nvmlDevice_t device, int *major, int *minor) {
    struct part part;
    ENTER();
    if (major && minor && read_handle(MIG_DEVICE, device, &part))
        device = handle_of(part.index);
    NEED_BOARD(device, major && minor);
    *major = (int)board_number(device, "board.%u.cc_major");
    *minor = (int)board_number(device, "board.%u.cc_minor");
    return NVML_SUCCESS;
}

API(nvmlDeviceGetNumGpuCores, nvmlDevice_t device, unsigned *cores) {
    ENTER_DEVICE(device, cores);
    *cores = board_number(device, "board.%u.sms") * 64;
    return NVML_SUCCESS;
}

// ------- modes

API(nvmlDeviceGetPerformanceState, nvmlDevice_t device, int *state) {
    ENTER_DEVICE(device, state);
    *state = 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetComputeMode, nvmlDevice_t device, int *mode) {
    ENTER_DEVICE(device, mode);
    *mode = 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetPersistenceMode, nvmlDevice_t device, int *mode) {
    ENTER_DEVICE(device, mode);
    *mode = 1;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetDisplayActive, nvmlDevice_t device, int *active) {
    ENTER_DEVICE(device, active);
    *active = 0;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetBoardPartNumber, nvmlDevice_t device, UNUSED char *part, UNUSED unsigned room) {
    ENTER_DEVICE(device, part);
    return NVML_NOT_SUPPORTED;
}

API(nvmlDeviceGetSerial, nvmlDevice_t device, char *serial, unsigned room) {
    char text[32];
    ENTER_DEVICE(device, serial);
    snprintf(text, sizeof text, "13%011u", number_of(device));
    return nvml_copy(text, serial, room);
}

API(nvmlDeviceGetVbiosVersion, nvmlDevice_t device, char *version, unsigned room) {
    ENTER_DEVICE(device, version);
    return nvml_copy("00.00.00.00.00", version, room);
}
