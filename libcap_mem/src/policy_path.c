// SPDX-License-Identifier: Apache-2.0
/* Finds the policy: in a container, in a private mount namespace, or beside the file that the library was
 * loaded from (a private folder in LD_LIBRARY_PATH). The first that exists counts, be it sound or not: a
 * broken policy is no reason to look for a kinder one. Knows nothing of what a policy says. */
#include "policy_path.h"

#include <errno.h>
#include <string.h>

#include "ledger.h"
#include "raw.h"
#include "say.h"

static const char *const places[] = {"/.gpuportion/policy", "/run/gpuportion/self/policy"};

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

static unsigned long hex(const char **at) {
    unsigned long value = 0;
    for (;; ++*at) {
        unsigned digit = (unsigned char)**at;
        if (digit >= '0' && digit <= '9')
            value = value << 4 | (digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            value = value << 4 | (digit - 'a' + 10);
        else
            return value;
    }
}

/* One line of /proc/self/maps: "start-end rwxp offset dev inode   path". The path, if the line is of our
 * first page. */
static const char *path_of_us(const char *line) {
    unsigned long start = hex(&line);
    line++;
    unsigned long end = hex(&line);
    if ((unsigned long)__ehdr_start < start || (unsigned long)__ehdr_start >= end)
        return NULL;
    return strchr(line, '/');
}

/* The path of the file that we were loaded from, cut to its folder with `name` appended. dladdr would need
 * libdl. */
static int beside_us(char *out, size_t room, const char *name) {
    char buffer[2 * 4096];
    size_t have = 0;
    int fd = gp_open("/proc/self/maps", O_RDONLY);
    if (fd < 0)
        return 0;
    const char *path = NULL;
    for (long got; !path && (got = gp_read(fd, buffer + have, sizeof buffer - 1 - have)) > 0;) {
        have += (size_t)got;
        buffer[have] = 0;
        char *line = buffer;
        for (char *end; !path && (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            path = path_of_us(line);
        }
        if (!path) {
            have -= (size_t)(line - buffer);
            memmove(buffer, line, have);
        }
    }
    gp_close(fd);
    size_t folder = path ? (size_t)(strrchr(path, '/') + 1 - path) : 0;
    size_t length = strlen(name) + 1;
    if (!folder || folder + length > room)
        return 0;
    memcpy(out, path, folder);
    memcpy(out + folder, name, length);
    return 1;
}

static const gp_policy *look(void) {
    const gp_policy *policy;
    char own[4096];
    for (size_t i = 0; i <= sizeof places / sizeof *places; i++) {
        const char *path = i < sizeof places / sizeof *places ? places[i] : own;
        if (path == own && !beside_us(own, sizeof own, "policy"))
            break;
        if (gp_policy_open(path, &policy) == 0)
            return policy;
        if (errno != ENOENT && errno != ENOTDIR) {
            gp_say_closed("the policy cannot be used: ", path);
            return NULL;
        }
    }
    gp_say_closed("there is no policy at ", places[0]);
    return NULL;
}

const gp_policy *gp_policy_here(void) {
    static const gp_policy *found;
    static int looked;
    const gp_policy *policy = __atomic_load_n(&found, __ATOMIC_ACQUIRE);
    if (__builtin_expect(policy != NULL, 1))
        return policy;
    if (__atomic_load_n(&looked, __ATOMIC_ACQUIRE))
        return NULL;
    int saved = errno;
    const gp_policy *none = NULL;
    policy = look();
    /* Two threads may both have looked. The second mapping is one page; nothing points to it. */
    if (policy && !__atomic_compare_exchange_n(&found, &none, policy, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        policy = none;
    __atomic_store_n(&looked, 1, __ATOMIC_RELEASE);
    errno = saved;
    return policy;
}
