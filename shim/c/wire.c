// SPDX-License-Identifier: Apache-2.0
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 20 };

struct header {
    char magic[4];
    uint32_t status, n_json, n_body;
};
static const char MAGIC[4] = {'G', 'P', 'P', '1'};

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

static bool ready(int fd, short events, long until) {
    for (;;) {
        long left = until - now_ms();
        struct pollfd wanted = {.fd = fd, .events = events};
        int n = poll(&wanted, 1, left > 0 ? (int)left : 0);
        if (n >= 0 || errno != EINTR)
            return n > 0;
    }
}

static int frame_socket(const char *path, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n >= sizeof address->sun_path)
        return -1;
    memcpy(address->sun_path, path, n + 1);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

// Its answer becomes what root starts: in a run directory that was moved somewhere public, anyone could
// listen.
static bool trusted_peer(int fd) {
    struct ucred peer;
    socklen_t n = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static enum wire_end connected(int fd, const struct sockaddr_un *address, long absent_until, long until) {
    while (connect(fd, (const struct sockaddr *)address, sizeof *address) != 0) {
        bool busy = errno == EAGAIN, absent = errno == ENOENT || errno == ECONNREFUSED;
        if (errno == EINTR)
            continue;
        if (errno == EACCES || errno == EPERM)
            return WIRE_FORBIDDEN;
        if (!busy && !absent)
            return WIRE_SILENT;
        if (now_ms() >= (absent && absent_until < until ? absent_until : until))
            return WIRE_SILENT;
        poll(NULL, 0, RETRY_MS);
    }
    return trusted_peer(fd) ? WIRE_ANSWERED : WIRE_STRANGER;
}

static ssize_t send_some(int fd, struct iovec *pieces, size_t n, int pass) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = n};
    if (pass >= 0) {
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &pass, sizeof pass);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// Leaves what is still to be sent.
static void skip(struct iovec *pieces, size_t n, size_t sent) {
    for (size_t i = 0; i < n && sent > 0; i++) {
        size_t gone = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
        pieces[i].iov_base = (char *)pieces[i].iov_base + gone;
        pieces[i].iov_len -= gone;
        sent -= gone;
    }
}

// In one go where that is possible: the daemon then has all of it when it looks. A descriptor goes with the
// first byte.
static enum wire_end send_all(int fd, struct iovec *pieces, size_t n, size_t left, int pass, long until) {
    while (left > 0) {
        ssize_t sent = send_some(fd, pieces, n, pass);
        if (sent > 0) {
            skip(pieces, n, (size_t)sent);
            left -= (size_t)sent;
            pass = -1;
        } else if (errno == EAGAIN && !ready(fd, POLLOUT, until)) {
            return WIRE_SILENT;
        } else if (errno != EAGAIN && errno != EINTR) {
            return WIRE_BROKEN;
        }
    }
    return WIRE_ANSWERED;
}

static enum wire_end send_request(int fd, const struct wire_request *request, long until) {
    static const char END[] = ",\"last\":true}"; // the daemon need not wait for more
    size_t body = request->body[0].iov_len + request->body[1].iov_len;
    size_t json = request->head.n + sizeof END - 1;
    struct header header = {.n_json = (uint32_t)json, .n_body = (uint32_t)body};
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    struct iovec pieces[] = {{&header, sizeof header},
                             {request->head.at, request->head.n},
                             {(void *)END, sizeof END - 1},
                             request->body[0],
                             request->body[1]};
    return send_all(fd, pieces, sizeof pieces / sizeof *pieces, sizeof header + json + body, request->pass,
                    until);
}

static enum wire_end read_all(int fd, char *at, size_t n, long until) {
    while (n > 0) {
        ssize_t got = recv(fd, at, n, MSG_DONTWAIT);
        if (got > 0) {
            at += got;
            n -= (size_t)got;
        } else if (got == 0) {
            return WIRE_BROKEN;
        } else if (errno == EAGAIN && !ready(fd, POLLIN, until)) {
            return WIRE_SILENT;
        } else if (errno != EAGAIN && errno != EINTR) {
            return WIRE_BROKEN;
        }
    }
    return WIRE_ANSWERED;
}

// The JSON of an answer is for clients that need more than its body.
static enum wire_end read_answer(int fd, struct wire_answer *answer, long until) {
    struct header header;
    enum wire_end end = read_all(fd, (char *)&header, sizeof header, until);
    if (end != WIRE_ANSWERED)
        return end;
    if (memcmp(header.magic, MAGIC, sizeof MAGIC) != 0 || header.n_json > WIRE_MAX_JSON ||
        header.n_body > WIRE_MAX_BODY)
        return WIRE_BROKEN;
    size_t total = (size_t)header.n_json + header.n_body;
    struct bytes rest = {0};
    bytes_reserve(&rest, total);
    end = read_all(fd, rest.at, total, until);
    if (end == WIRE_ANSWERED)
        bytes_add(&answer->body, rest.at + header.n_json, header.n_body);
    answer->status = header.status;
    bytes_free(&rest);
    return end;
}

enum wire_end wire_ask(const struct wire_request *request, struct wire_answer *answer) {
    struct sockaddr_un address;
    *answer = (struct wire_answer){0};
    int fd = frame_socket(request->path, &address);
    if (fd < 0)
        return WIRE_TOO_LONG;
    long began = now_ms(), until = began + request->wait_ms;
    enum wire_end end = connected(fd, &address, began + request->absent_ms, until);
    if (end == WIRE_ANSWERED) {
        enum wire_end sent = send_request(fd, request, until);
        // A daemon that refuses early may have closed before it read everything: its answer is still there.
        end = sent == WIRE_SILENT ? sent : read_answer(fd, answer, until);
    }
    answer->waited_ms = now_ms() - began;
    close(fd);
    return end;
}

void wire_note(const struct wire_request *request) {
    struct sockaddr_un address;
    int fd = frame_socket(request->path, &address);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 && trusted_peer(fd))
        send_request(fd, request, now_ms());
    close(fd);
}
