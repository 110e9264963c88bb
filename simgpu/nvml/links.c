// SPDX-License-Identifier: Apache-2.0
// How boards are connected: PCIe, NVLink, and who is near whom. Two boards share a switch, four a host
// bridge, eight a socket; the NVLinks of a board go to the others that have them, by turns.
#include "nvml.h"

enum level { INTERNAL = 0, SINGLE = 10, HOSTBRIDGE = 30, NODE = 40, SYSTEM = 50 };
enum { REMOTE_GPU = 0, LANES = 16, NVLINK_VERSION_OF_AMPERE = 3 };

static enum level common_level(nvmlDevice_t one, nvmlDevice_t other) {
    unsigned a = number_of(one), b = number_of(other);
    return a == b           ? INTERNAL
           : a / 2 == b / 2 ? SINGLE
           : a / 4 == b / 4 ? HOSTBRIDGE
           : a / 8 == b / 8 ? NODE
                            : SYSTEM;
}

API(nvmlDeviceGetTopologyCommonAncestor, nvmlDevice_t one, nvmlDevice_t other, int *level) {
    ENTER_DEVICE(one, level);
    NEED(is_device(other));
    *level = (int)common_level(one, other);
    return NVML_SUCCESS;
}

API(nvmlDeviceGetTopologyNearestGpus, nvmlDevice_t device, int level, unsigned *count, nvmlDevice_t *out) {
    ENTER_DEVICE(device, count);
    unsigned found = 0, room = out ? *count : 0;
    for (unsigned i = 0; i < nvml.view.visible; i++) {
        if (handle_of(i) == device || (int)common_level(device, handle_of(i)) > level)
            continue;
        if (found < room)
            out[found] = handle_of(i);
        found++;
    }
    *count = found;
    return NVML_SUCCESS;
}

API(nvmlDeviceOnSameBoard, nvmlDevice_t one, nvmlDevice_t other, int *same) {
    ENTER_DEVICE(one, same);
    NEED(is_device(other));
    *same = one == other;
    return NVML_SUCCESS;
}

// ------- NVLink

static unsigned links_of(nvmlDevice_t device) {
    return board_number(device, "board.%u.nvlinks");
}

// The board at the other end; NULL: the link is down.
static nvmlDevice_t remote_of(nvmlDevice_t device, unsigned link) {
    nvmlDevice_t others[SIM_DEVICES];
    unsigned n = 0;
    for (unsigned i = 0; i < nvml.view.visible; i++)
        if (handle_of(i) != device && links_of(handle_of(i)))
            others[n++] = handle_of(i);
    return n ? others[link % n] : NULL;
}

static int check_link(nvmlDevice_t device, unsigned link, const void *out) {
    ENTER_DEVICE(device, out);
    if (!links_of(device))
        return NVML_NOT_SUPPORTED;
    NEED(link < links_of(device));
    return NVML_SUCCESS;
}

API(nvmlDeviceGetNvLinkState, nvmlDevice_t device, unsigned link, int *active) {
    int result = check_link(device, link, active);
    if (!result)
        *active = remote_of(device, link) != NULL;
    return result;
}

API(nvmlDeviceGetNvLinkVersion, nvmlDevice_t device, unsigned link, unsigned *version) {
    int result = check_link(device, link, version);
    if (!result)
        *version = NVLINK_VERSION_OF_AMPERE + (board_number(device, "board.%u.cc_major") > 8);
    return result;
}

API(nvmlDeviceGetNvLinkCapability, nvmlDevice_t device, unsigned link, int capability, unsigned *has) {
    enum { P2P = 0, SYSMEM = 1, P2P_ATOMICS = 2 };
    int result = check_link(device, link, has);
    if (!result)
        *has = capability == P2P || capability == P2P_ATOMICS;
    return result;
}

API(nvmlDeviceGetNvLinkRemotePciInfo_v2, nvmlDevice_t device, unsigned link, struct pci_info *out) {
    int result = check_link(device, link, out);
    if (result)
        return result;
    nvmlDevice_t remote = remote_of(device, link);
    return remote ? nvml_pci(remote, out) : NVML_NOT_SUPPORTED;
}

API(nvmlDeviceGetNvLinkRemotePciInfo, nvmlDevice_t device, unsigned link, struct pci_info *out) {
    return nvmlDeviceGetNvLinkRemotePciInfo_v2(device, link, out);
}

API(nvmlDeviceGetNvLinkRemoteDeviceType, nvmlDevice_t device, unsigned link, int *type) {
    int result = check_link(device, link, type);
    if (!result)
        *type = REMOTE_GPU;
    return result;
}

API(nvmlDeviceGetNvLinkErrorCounter, nvmlDevice_t device, unsigned link, UNUSED int counter,
    unsigned long long *errors) {
    int result = check_link(device, link, errors);
    if (!result)
        *errors = 0;
    return result;
}

API(nvmlDeviceGetP2PStatus, nvmlDevice_t one, nvmlDevice_t other, UNUSED int what, int *status) {
    enum { OK = 0, DISABLED_BY_SETTING = 4 };
    ENTER_DEVICE(one, status);
    NEED(is_device(other));
    *status = sim_number(&nvml.view, "no_peers", 0) ? DISABLED_BY_SETTING : OK;
    return NVML_SUCCESS;
}

// ------- PCIe

static int generation(nvmlDevice_t device, unsigned *out) {
    ENTER_DEVICE(device, out);
    *out = board_number(device, "board.%u.pcie");
    return NVML_SUCCESS;
}

static int width(nvmlDevice_t device, unsigned *out) {
    ENTER_DEVICE(device, out);
    *out = LANES;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetCurrPcieLinkGeneration, nvmlDevice_t device, unsigned *out) {
    return generation(device, out);
}

API(nvmlDeviceGetMaxPcieLinkGeneration, nvmlDevice_t device, unsigned *out) {
    return generation(device, out);
}

API(nvmlDeviceGetGpuMaxPcieLinkGeneration, nvmlDevice_t device, unsigned *out) {
    return generation(device, out);
}

API(nvmlDeviceGetCurrPcieLinkWidth, nvmlDevice_t device, unsigned *out) {
    return width(device, out);
}

API(nvmlDeviceGetMaxPcieLinkWidth, nvmlDevice_t device, unsigned *out) {
    return width(device, out);
}

// KB/s, in or out: a gigabyte for a hundred percent of load.
API(nvmlDeviceGetPcieThroughput, nvmlDevice_t device, int counter, unsigned *out) {
    ENTER_DEVICE(device, out);
    NEED(counter == 0 || counter == 1);
    *out = board_number(device, "board.%u.load") * 10000;
    return NVML_SUCCESS;
}

API(nvmlDeviceGetPcieReplayCounter, nvmlDevice_t device, unsigned *out) {
    ENTER_DEVICE(device, out);
    *out = 0;
    return NVML_SUCCESS;
}
