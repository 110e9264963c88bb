// SPDX-License-Identifier: Apache-2.0
// Those functions of string.h that the programs, or the compiler in them, call. Short before fast: their
// texts are some kilobytes. Built with -fno-builtin, or the compiler would make each a call of itself.
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

// Macros too, with the C23 headers of newer libcs.
#undef memchr
#undef strchr
#undef strrchr
#undef strstr

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    char *t = to;
    const char *f = from;
    for (; n >= sizeof(long); n -= sizeof(long), t += sizeof(long), f += sizeof(long)) {
        long word;
        __builtin_memcpy(&word, f, sizeof word);
        __builtin_memcpy(t, &word, sizeof word);
    }
    while (n-- > 0)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    char *t = to;
    const char *f = from;
    if (t <= f || t >= f + n) {
        while (n-- > 0)
            *t++ = *f++;
    } else {
        while (n-- > 0)
            t[n] = f[n];
    }
    return to;
}

void *memset(void *to, int c, size_t n) {
    char *t = to;
    while (n-- > 0)
        *t++ = (char)c;
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const unsigned char *x = a, *y = b;
    for (; n > 0; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

void *memchr(const void *in, int c, size_t n) {
    for (const unsigned char *at = in; n > 0; n--, at++)
        if (*at == (unsigned char)c)
            return (void *)at;
    return NULL;
}

void *memmem(const void *in, size_t n, const void *what, size_t m) {
    const char *first = what, *at = in, *end = at + n;
    if (m == 0)
        return (void *)in;
    while ((size_t)(end - at) >= m && (at = memchr(at, *first, (size_t)(end - at) - m + 1)) != NULL) {
        if (memcmp(at, what, m) == 0)
            return (void *)at;
        at++;
    }
    return NULL;
}

size_t strlen(const char *text) {
    const char *end = text;
    while (*end != '\0')
        end++;
    return (size_t)(end - text);
}

int strncmp(const char *a, const char *b, size_t n) {
    for (; n > 0; n--, a++, b++)
        if (*a != *b || *a == '\0')
            return (unsigned char)*a - (unsigned char)*b;
    return 0;
}

int strcmp(const char *a, const char *b) {
    return strncmp(a, b, (size_t)-1);
}

static int lower(char c) {
    return c >= 'A' && c <= 'Z' ? c + 32 : (unsigned char)c;
}

int strncasecmp(const char *a, const char *b, size_t n) {
    for (; n > 0; n--, a++, b++)
        if (lower(*a) != lower(*b) || *a == '\0')
            return lower(*a) - lower(*b);
    return 0;
}

char *strchr(const char *text, int c) {
    for (;; text++) {
        if (*text == (char)c)
            return (char *)text;
        if (*text == '\0')
            return NULL;
    }
}

char *strrchr(const char *text, int c) {
    const char *found = NULL;
    for (; (text = strchr(text, c)) != NULL; text++) {
        found = text;
        if (*text == '\0')
            break;
    }
    return (char *)found;
}

char *strstr(const char *text, const char *what) {
    return memmem(text, strlen(text), what, strlen(what));
}

size_t strcspn(const char *text, const char *stop) {
    size_t n = 0;
    while (text[n] != '\0' && strchr(stop, text[n]) == NULL)
        n++;
    return n;
}

size_t strspn(const char *text, const char *pass) {
    size_t n = 0;
    while (text[n] != '\0' && strchr(pass, text[n]) != NULL)
        n++;
    return n;
}

char *strsep(char **rest, const char *stop) {
    char *word = *rest;
    if (word == NULL)
        return NULL;
    char *end = word + strcspn(word, stop);
    *rest = *end == '\0' ? NULL : end + 1;
    *end = '\0';
    return word;
}

char *getenv(const char *name) {
    size_t n = strlen(name);
    for (char **at = environ; *at != NULL; at++)
        if (strncmp(*at, name, n) == 0 && (*at)[n] == '=')
            return *at + n + 1;
    return NULL;
}
