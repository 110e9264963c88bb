// SPDX-License-Identifier: Apache-2.0
// Loads code: any image that is one, for a cost in device memory; its functions and variables by name.
#include "modules.h"
#include "memory.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MODULE_MAGIC = 0x4d4f4455, LIBRARY_MAGIC = 0x4c494252, VARIABLE_ROOM = 65536 };

struct variable {
    char *name;
    struct block *block;
    struct variable *next;
};

struct module {
    uint32_t magic;
    struct context *context; // NULL: unloaded, or its context has ended
    struct library *library; // whose image it uses, or NULL
    struct image image;
    struct function *functions;
    struct variable *variables;
    struct module *next;
};

struct library {
    uint32_t magic;
    struct image image;
    struct function *kernels;
};

static struct module *all; // loaded ones

static bool is_module(const struct module *module) {
    return module && module->magic == MODULE_MAGIC;
}
static bool is_library(const struct library *library) {
    return library && library->magic == LIBRARY_MAGIC;
}
static struct image *image_of(struct module *module) {
    return module->library ? &module->library->image : &module->image;
}

#define NEED_HANDLE(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return CUDA_ERROR_INVALID_HANDLE;                                                                \
    } while (0)

// ------- functions and variables, with the lock held

static void set_defaults(struct function *function) {
    enum {
        MAX_THREADS = 0,
        REGISTERS = 4,
        PTX_VERSION = 5,
        BINARY_VERSION = 6,
        MAX_DYNAMIC_SHARED = 8,
        CARVEOUT = 9
    };
    unsigned board = driver.device[0].board;
    int version = (int)(sim_number(&driver.view, "board.%u.cc_major", board) * 10 +
                        sim_number(&driver.view, "board.%u.cc_minor", board));
    function->attribute[MAX_THREADS] = 1024;
    function->attribute[REGISTERS] = 32;
    function->attribute[PTX_VERSION] = function->attribute[BINARY_VERSION] = version;
    function->attribute[MAX_DYNAMIC_SHARED] = 49152;
    function->attribute[CARVEOUT] = -1;
}

static CUresult find_function(struct function **out, struct function **list, const struct image *image,
                              const char *name) {
    for (*out = *list; *out; *out = (*out)->next)
        if (!strcmp((*out)->name, name))
            return CUDA_SUCCESS;
    if (!image_has(image, name))
        return CUDA_ERROR_NOT_FOUND;
    struct function *function = calloc(1, sizeof *function);
    char *copy = strdup(name);
    if (!function || !copy) {
        free(function);
        free(copy);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *function = (struct function){.magic = FUNCTION_MAGIC, .name = copy, .next = *list};
    set_defaults(function);
    *list = *out = function;
    return CUDA_SUCCESS;
}

static CUresult find_variable(struct variable **out, struct module *module, const char *name) {
    CUdeviceptr at;
    for (*out = module->variables; *out; *out = (*out)->next)
        if (!strcmp((*out)->name, name))
            return CUDA_SUCCESS;
    if (!image_has(image_of(module), name))
        return CUDA_ERROR_NOT_FOUND;
    struct variable *variable = calloc(1, sizeof *variable);
    char *copy = strdup(name);
    if (!variable || !copy || memory_new(&at, VARIABLE_ROOM, KIND_VARIABLE, module->context, NULL)) {
        free(variable);
        free(copy);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *variable = (struct variable){copy, arena_find(at), module->variables};
    module->variables = *out = variable;
    return CUDA_SUCCESS;
}

// ------- modules

static CUresult module_new(struct module **out, struct context *ctx, struct library *library) {
    struct module *module = calloc(1, sizeof *module);
    if (!module || !charge(ctx->device, driver.costs.module)) {
        free(module);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *module = (struct module){.magic = MODULE_MAGIC, .context = ctx, .library = library, .next = all};
    *out = all = module;
    return CUDA_SUCCESS;
}

// The object and its functions stay: handles to them may still be asked about.
static void module_end(struct module *module) {
    struct module **at = &all;
    while (*at != module)
        at = &(*at)->next;
    *at = module->next;
    for (struct variable *variable = module->variables, *next; variable; variable = next) {
        next = variable->next;
        memory_drop(variable->block);
        free(variable->name);
        free(variable);
    }
    module->variables = NULL;
    uncharge(module->context->device, driver.costs.module);
    module->context = NULL;
    module->magic = 0;
}

void modules_drop(struct context *context) {
    for (struct module *module = all, *next; module; module = next) {
        next = module->next;
        if (module->context == context)
            module_end(module);
    }
}

static CUresult load(CUmodule *out, const void *bytes, struct context *ctx) {
    NEED(out);
    struct image image;
    CUresult result = image_read(&image, bytes);
    if (result)
        return result;
    lock_acquire(&driver.lock);
    result = module_new(out, ctx, NULL);
    if (!result)
        (*out)->image = image;
    lock_release(&driver.lock);
    if (result)
        image_free(&image);
    return result;
}

// The file, with a NUL behind it as text images need.
static void *read_file(const char *path) {
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    char *bytes = size > 0 ? calloc(1, (size_t)size + 1) : NULL;
    if (bytes && pread(fd, bytes, (size_t)size, 0) != size) {
        free(bytes);
        bytes = NULL;
    }
    if (fd >= 0)
        close(fd);
    return bytes;
}

API(cuModuleLoad, CUmodule *out, const char *path) {
    ENTER_CONTEXT();
    void *bytes = read_file(path);
    if (!bytes)
        return CUDA_ERROR_FILE_NOT_FOUND;
    CUresult result = load(out, bytes, ctx);
    free(bytes);
    return result;
}

API(cuModuleLoadData, CUmodule *out, const void *bytes) {
    ENTER_CONTEXT();
    return load(out, bytes, ctx);
}

API(cuModuleLoadDataEx, CUmodule *out, const void *bytes, UNUSED unsigned n, UNUSED void *options,
    UNUSED void *values) {
    ENTER_CONTEXT();
    return load(out, bytes, ctx);
}

API(cuModuleLoadFatBinary, CUmodule *out, const void *bytes) {
    ENTER_CONTEXT();
    return load(out, bytes, ctx);
}

API(cuModuleUnload, CUmodule module) {
    ENTER();
    NEED_HANDLE(is_module(module) && !module->library);
    lock_acquire(&driver.lock);
    module_end(module);
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

API(cuModuleGetLoadingMode, int *mode) {
    enum { EAGER = 1 };
    ENTER();
    NEED(mode);
    *mode = EAGER;
    return CUDA_SUCCESS;
}

API(cuModuleGetFunction, CUfunction *out, CUmodule module, const char *name) {
    ENTER();
    NEED(out && name);
    NEED_HANDLE(is_module(module));
    lock_acquire(&driver.lock);
    CUresult result = find_function(out, &module->functions, image_of(module), name);
    if (!result) {
        (*out)->module = module;
        (*out)->library = module->library;
    }
    lock_release(&driver.lock);
    return result;
}

static CUresult global(CUdeviceptr *at, size_t *size, CUmodule module, const char *name) {
    struct variable *variable = NULL;
    CUresult result = find_variable(&variable, module, name);
    if (!result && at)
        *at = variable->block->base;
    if (!result && size)
        *size = variable->block->size;
    return result;
}

API(cuModuleGetGlobal_v2, CUdeviceptr *at, size_t *size, CUmodule module, const char *name) {
    ENTER();
    NEED(name);
    NEED_HANDLE(is_module(module));
    lock_acquire(&driver.lock);
    CUresult result = global(at, size, module, name);
    lock_release(&driver.lock);
    return result;
}

// ------- libraries

static CUresult library_load(CUlibrary *out, const void *bytes) {
    NEED(out);
    struct library *library = calloc(1, sizeof *library);
    if (!library)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = image_read(&library->image, bytes);
    library->magic = LIBRARY_MAGIC;
    if (result)
        free(library);
    else
        *out = library;
    return result;
}

API(cuLibraryLoadData, CUlibrary *out, const void *bytes, UNUSED void *jit, UNUSED void *jit_values,
    UNUSED unsigned n_jit, UNUSED void *options, UNUSED void *values, UNUSED unsigned n) {
    ENTER();
    return library_load(out, bytes);
}

API(cuLibraryLoadFromFile, CUlibrary *out, const char *path, UNUSED void *jit, UNUSED void *jit_values,
    UNUSED unsigned n_jit, UNUSED void *options, UNUSED void *values, UNUSED unsigned n) {
    ENTER();
    void *bytes = read_file(path);
    if (!bytes)
        return CUDA_ERROR_FILE_NOT_FOUND;
    CUresult result = library_load(out, bytes);
    free(bytes);
    return result;
}

API(cuLibraryUnload, CUlibrary library) {
    ENTER();
    NEED_HANDLE(is_library(library));
    lock_acquire(&driver.lock);
    for (struct module *module = all, *next; module; module = next) {
        next = module->next;
        if (module->library == library)
            module_end(module);
    }
    library->magic = 0;
    lock_release(&driver.lock);
    return CUDA_SUCCESS;
}

// The library's module in a context, made when it is first used there.
static CUresult module_in(CUmodule *out, CUlibrary library, struct context *ctx) {
    for (*out = all; *out; *out = (*out)->next)
        if ((*out)->library == library && (*out)->context == ctx)
            return CUDA_SUCCESS;
    return module_new(out, ctx, library);
}

CUresult kernel_load(const struct function *kernel, struct context *ctx) {
    CUmodule module;
    NEED_HANDLE(is_library(kernel->library));
    lock_acquire(&driver.lock);
    CUresult result = module_in(&module, kernel->library, ctx);
    lock_release(&driver.lock);
    return result;
}

API(cuLibraryGetModule, CUmodule *out, CUlibrary library) {
    ENTER_CONTEXT();
    NEED(out);
    NEED_HANDLE(is_library(library));
    lock_acquire(&driver.lock);
    CUresult result = module_in(out, library, ctx);
    lock_release(&driver.lock);
    return result;
}

API(cuLibraryGetKernel, CUkernel *out, CUlibrary library, const char *name) {
    ENTER();
    NEED(out && name);
    NEED_HANDLE(is_library(library));
    lock_acquire(&driver.lock);
    CUresult result = find_function(out, &library->kernels, &library->image, name);
    if (!result)
        (*out)->library = library;
    lock_release(&driver.lock);
    return result;
}

API(cuLibraryGetGlobal, CUdeviceptr *at, size_t *size, CUlibrary library, const char *name) {
    ENTER_CONTEXT();
    NEED(name);
    NEED_HANDLE(is_library(library));
    struct module *module;
    lock_acquire(&driver.lock);
    CUresult result = module_in(&module, library, ctx);
    if (!result)
        result = global(at, size, module, name);
    lock_release(&driver.lock);
    return result;
}

API(cuLibraryGetManaged, CUdeviceptr *at, size_t *size, CUlibrary library, const char *name) {
    ENTER();
    return cuLibraryGetGlobal(at, size, library, name);
}

API(cuKernelGetFunction, CUfunction *out, CUkernel kernel) {
    ENTER_CONTEXT();
    NEED(out);
    NEED_HANDLE(function_is(kernel) && is_library(kernel->library));
    struct module *module;
    lock_acquire(&driver.lock);
    CUresult result = module_in(&module, kernel->library, ctx);
    if (!result)
        result = find_function(out, &module->functions, image_of(module), kernel->name);
    if (!result) {
        (*out)->module = module;
        (*out)->library = kernel->library;
    }
    lock_release(&driver.lock);
    return result;
}
