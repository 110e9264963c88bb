// SPDX-License-Identifier: Apache-2.0
// Streams and events, for those who capture them.
#pragma once
#include "driver.h"
#include <time.h>

struct node;
struct capture;

struct stream {
    uint32_t magic;
    struct context *context;
    unsigned flags;
    int priority;
    uint64_t id;
    struct capture *capture; // NULL: work runs
    struct node **last;      // what the next captured work comes after
    size_t last_count;
};

struct event {
    uint32_t magic;
    struct context *context;
    unsigned flags;
    bool recorded;
    struct timespec at;
    struct capture *capture; // recorded in this one, after these nodes
    struct node **after;
    size_t after_count;
};

#pragma GCC visibility push(hidden)
bool stream_is_default(CUstream stream);
bool stream_is(CUstream stream);
void event_record(CUevent event);
CUresult stream_create(CUstream *out, unsigned flags, int priority, struct context *ctx);

// capture.c
struct capture *capture_of(CUstream stream);         // NULL: it is not being captured
CUresult capture_forbids(CUstream stream);           // for calls that must not be made while it is
bool capture_record(CUevent event, CUstream stream); // false: record it as ever
bool capture_wait(CUstream stream, CUevent event, CUresult *result);
void capture_left(struct stream *stream); // it is destroyed
#pragma GCC visibility pop
