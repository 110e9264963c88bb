// SPDX-License-Identifier: Apache-2.0
// Where the two C programs begin when they are built without a C library.
//
// Why without one: engines call the launcher four times for each container. The start-up of a static glibc
// asks CPUID some twenty times, and a virtual machine traps each of them: 0.3 ms a call were measured in one,
// which is more than everything else that the launcher does. calls.c, text.c and memory.c have what is used
// of libc, under its names and with its headers, so that the sources build with either; the sanitized twins
// are built with glibc.
#include <linux/auxvec.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "syscall6.h"

#if defined(__x86_64__)
__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call bare_begin\n"
        "    hlt\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    and x1, x0, #-16\n"
        "    mov sp, x1\n"
        "    bl bare_begin\n"
        "    brk #1\n");
#else
#error "no start for this architecture: build with -DGPUPORTION_BARE=OFF"
#endif

int main(int argc, char **argv, char **envp);
void bare_begin(long *stack);
void __stack_chk_fail(void);

char **environ;
uintptr_t __stack_chk_guard = 0x6d2b79f5u; // until the kernel's random bytes are read

void _exit(int status) {
    for (;;)
        bare_syscall6(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

void __stack_chk_fail(void) {
    static const char text[] = "gpuportion: the stack was overwritten; nothing was started\n";
    bare_syscall6(SYS_write, 2, (long)text, sizeof text - 1, 0, 0, 0);
    _exit(134);
}

// Its own guard changes while it runs.
__attribute__((used, optimize("no-stack-protector"))) void bare_begin(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    environ = argv + argc + 1;
    char **end = environ;
    while (*end != NULL)
        end++;
    for (const unsigned long *aux = (unsigned long *)(end + 1); aux[0] != AT_NULL; aux += 2)
        if (aux[0] == AT_RANDOM)
            memcpy(&__stack_chk_guard, (const void *)aux[1], sizeof __stack_chk_guard);
    __stack_chk_guard &= ~(uintptr_t)0xff; // a 0 ends a string that runs into it
    _exit(main(argc, argv, environ));
}
