// SPDX-License-Identifier: Apache-2.0
// The frames of docs/protocol.md, as its two C clients need them: one request, one answer, within a time. The
// socket is close-on-exec and never blocks. Knows nothing of operations.
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "bytes.h"

// A daemon that is being restarted without a socket unit is away for about this long; one that was stopped
// stays away, and a user should not wait for it as long as for an answer.
enum { WIRE_ABSENT_MS = 2000 };
enum { WIRE_MAX_JSON = 1 << 20, WIRE_MAX_BODY = 16 << 20 };
enum { WIRE_OK = 0, WIRE_REFUSED = 1 };

enum wire_end {
    WIRE_ANSWERED,
    WIRE_SILENT,    // nobody listens, or there was no answer in time
    WIRE_FORBIDDEN, // the socket is not for this user
    WIRE_BROKEN,    // the connection ended early, or what came is no frame
    WIRE_STRANGER,  // who listens is neither root nor this user
    WIRE_TOO_LONG,  // the socket's path does not fit into an address
};

struct wire_request {
    const char *path;     // of the socket
    struct bytes head;    // a JSON object but for its closing brace: what wire has to say itself follows
    struct iovec body[2]; // may be empty
    int pass;             // a descriptor to send along, or -1
    int wait_ms;          // for all of it
    int absent_ms;        // of these, while nobody listens
};

struct wire_answer {
    uint32_t status;
    struct bytes body;
    long waited_ms;
};

enum wire_end wire_ask(const struct wire_request *request, struct wire_answer *answer);
// Sends the request if that goes without waiting, and does not read what is answered.
void wire_note(const struct wire_request *request);
