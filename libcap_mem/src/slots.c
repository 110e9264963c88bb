// SPDX-License-Identifier: Apache-2.0
/* Fills the slots of the forwarders: opens the real library when the first function is called, by the
 * absolute path that the policy names, and looks symbols up one by one. Knows nothing of what they do.
 *
 * No lock is held over dlopen: a constructor of the real library may call back, and the loader has a lock of
 * its own. Two threads that come at once get the same handle. A look-up by that handle searches the real
 * library and what it needs, none of which is us: the handle is local, and its path is not our inode. Where
 * it is after all (the policy names us), the address falls into our own image and counts as missing.
 */
#include "slots.h"

#include <stddef.h>

#include "policy_path.h"
#include "raw.h"
#include "say.h"

/* dlopen moved into libc with glibc 2.34. Before, a program that was linked with the driver directly need not
 * have libdl; libc's own entry serves then. None of the names has a version: hooks.cmake says why. */
extern void *dlopen(const char *path, int flags) __attribute__((weak));
extern void *dlsym(void *handle, const char *name) __attribute__((weak));
extern void *__libc_dlopen_mode(const char *path, int flags) __attribute__((weak));
extern void *__libc_dlsym(void *handle, const char *name) __attribute__((weak));

enum { NOW_AND_LOCAL = 2, FROM_LIBC = (int)0x80000000 }; /* RTLD_NOW | RTLD_LOCAL, __RTLD_DLOPEN */

extern void *gp_slots[] __attribute__((visibility("hidden")));
extern const char gp_names[] __attribute__((visibility("hidden")));
extern const uint16_t gp_name_at[] __attribute__((visibility("hidden")));
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

static void *handle;
static int closed;

static void *open_library(const char *path) {
    if (dlopen)
        return dlopen(path, NOW_AND_LOCAL);
    return __libc_dlopen_mode ? __libc_dlopen_mode(path, NOW_AND_LOCAL | FROM_LIBC) : NULL;
}

static void *look_up(void *library, const char *name) {
    void *found = dlsym ? dlsym(library, name) : __libc_dlsym ? __libc_dlsym(library, name) : NULL;
    int ours = (const char *)found >= __ehdr_start && (const char *)found < _end;
    return ours ? NULL : found;
}

static void *library(void) {
    void *have = __atomic_load_n(&handle, __ATOMIC_ACQUIRE);
    if (have || __atomic_load_n(&closed, __ATOMIC_ACQUIRE))
        return have;
    const gp_policy *policy = gp_policy_here();
    const char *path = policy ? gp_driver_path(policy) : "";
    have = path[0] == '/' ? open_library(path) : NULL;
    if (have) {
        __atomic_store_n(&handle, have, __ATOMIC_RELEASE);
        return have;
    }
    if (policy)
        gp_say_closed("the driver cannot be loaded from ", path[0] ? path : "(the policy names none)");
    __atomic_store_n(&closed, 1, __ATOMIC_RELEASE);
    return NULL;
}

void *gp_real(unsigned index) {
    void *from = library();
    return from ? look_up(from, gp_names + gp_name_at[index]) : NULL;
}

/* Called by the forwarders, in assembler. */
void *gp_resolve(unsigned index) {
    void *function = gp_real(index);
    if (!function)
        function = __atomic_load_n(&handle, __ATOMIC_ACQUIRE) ? (void *)gp_symbol_missing
                                                              : (void *)gp_library_closed;
    __atomic_store_n(&gp_slots[index], function, __ATOMIC_RELAXED);
    return function;
}
