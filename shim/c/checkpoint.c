// SPDX-License-Identifier: Apache-2.0
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "bytes.h"
#include "image_root.h"

// filelocks.img, which is there if any process had a lock: two words that name its kind, then the locks, each
// with its size before it. A lock's first field (protobuf's number 1, a varint) says its kind.
enum { MOST = 1 << 20, KIND = 0x08, OF_DESCRIPTION = 4, MORE = 0x80 };
enum { NAMES = 8, SIZE = 4 };

static size_t size_at(const unsigned char *at) {
    return at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

static bool any_of_description(const unsigned char *at, size_t n) {
    if (n < NAMES)
        return true;
    for (at += NAMES, n -= NAMES; n > 0;) {
        size_t size = n > SIZE ? size_at(at) : 0;
        if (size < 2 || size > n - SIZE || at[SIZE] != KIND || at[SIZE + 1] & (OF_DESCRIPTION | MORE))
            return true;
        at += SIZE + size, n -= SIZE + size;
    }
    return false;
}

bool checkpoint_has_locks(const char *folder) {
    struct bytes path = {0}, text = {0};
    bytes_text(&path, folder != NULL ? folder : "checkpoint"); // as for runc
    bytes_text(&path, "/filelocks.img");
    int fd = open(bytes_c(&path), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bytes_free(&path);
    if (fd < 0)
        return errno != ENOENT;
    bool whole = image_read(fd, MOST, &text) && text.n <= MOST;
    close(fd);
    bool has = !whole || any_of_description((const unsigned char *)text.at, text.n);
    bytes_free(&text);
    return has;
}
