// SPDX-License-Identifier: Apache-2.0
// Reads names out of images. The images come from the caller's own process, without a length, as the real
// driver gets them: they are trusted to be what their first bytes say. Fat binaries are compressed; they are
// not opened.
#include "image.h"
#include <elf.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t fat_wrapper = 0x466243b1, fat_binary = 0xba55ed50;

static const Elf64_Shdr *find_symbols(const unsigned char *elf, const Elf64_Shdr **sections) {
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)elf;
    const Elf64_Shdr *section = (const Elf64_Shdr *)(elf + head->e_shoff);
    *sections = section;
    for (int i = 0; i < head->e_shnum; i++)
        if (section[i].sh_type == SHT_SYMTAB)
            return &section[i];
    return NULL;
}

static char *names_of(const unsigned char *elf) {
    const Elf64_Shdr *sections, *symbols = find_symbols(elf, &sections);
    if (!symbols)
        return calloc(1, 1);
    const Elf64_Sym *symbol = (const Elf64_Sym *)(elf + symbols->sh_offset);
    const char *strings = (const char *)elf + sections[symbols->sh_link].sh_offset;
    size_t n = symbols->sh_size / sizeof *symbol, room = 1;
    for (size_t i = 0; i < n; i++)
        room += strlen(strings + symbol[i].st_name) + 1;
    char *names = calloc(1, room), *at = names;
    for (size_t i = 0; names && i < n; i++) {
        const char *name = strings + symbol[i].st_name;
        if (*name)
            at = stpcpy(at, name) + 1;
    }
    return names;
}

static bool begins_text(unsigned char c) {
    return c == '\t' || c == '\n' || c == '\r' || (c >= ' ' && c < 0x7f);
}

CUresult image_read(struct image *image, const void *bytes) {
    const unsigned char *start = bytes;
    uint32_t magic;
    *image = (struct image){NULL, NULL};
    if (!start)
        return CUDA_ERROR_INVALID_VALUE;
    if (!memcmp(start, ELFMAG, SELFMAG)) {
        image->names = names_of(start);
        return image->names ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    // Before any text: the first byte of a fat binary is a letter.
    memcpy(&magic, start, sizeof magic);
    if (magic == fat_wrapper || magic == fat_binary)
        return CUDA_SUCCESS;
    image->ptx = begins_text(*start) && strstr(bytes, ".version") ? strdup(bytes) : NULL;
    return image->ptx ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

static bool ends_name(char c) {
    return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '$');
}

static bool in_text(const char *text, const char *name) {
    size_t n = strlen(name);
    for (const char *at = text; n && (at = strstr(at, name)); at += n)
        if (at > text && ends_name(at[-1]) && ends_name(at[n]))
            return true;
    return false;
}

bool image_has(const struct image *image, const char *name) {
    if (image->ptx)
        return in_text(image->ptx, name);
    if (!image->names)
        return *name;
    for (const char *at = image->names; *at; at += strlen(at) + 1)
        if (!strcmp(at, name))
            return true;
    return false;
}

void image_free(struct image *image) {
    free(image->names);
    free(image->ptx);
}
