"""Makes, for every driver function, the exported symbol that forwards to the real one.

From a list of symbols (symbols/*.txt) and a table of hooks (*.def) come an assembler file and a header. Each
symbol gets a number, a slot (0 until the first call) and a forwarder: a jump through the slot, which asks
`gp_resolve` to fill it when it is empty. A symbol that is hooked has its forwarder under the hidden name `real_X`
alone: `X` is then a function of ours, in C. The assembler file serves x86-64 and aarch64, by the preprocessor.

Knows nothing of what the functions do. Argument registers are kept over the resolving call, those of floating point
included; a function of the driver takes no vector wider than 128 bits.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

HOOK = re.compile(r"^HOOK\((\w+),", re.MULTILINE)

RESOLVE = """\
#if defined(__x86_64__)
#define FORWARDER(symbol, index)                                                                      \\
    symbol: movq gp_slots + 8 * index(%rip), %r11; testq %r11, %r11; je 1f; jmp *%r11;                \\
    1: movl $index, %eax; jmp resolve
#elif defined(__aarch64__)
#define FORWARDER(symbol, index)                                                                      \\
    symbol: hint 34; adrp x16, gp_slots + 8 * index; ldr x16, [x16, :lo12:gp_slots + 8 * index];      \\
    cbz x16, 1f; br x16;                                                                              \\
    1: mov w17, index; b resolve
#else
#error "forwarders are written for x86-64 and aarch64"
#endif

    .text
    .hidden gp_resolve
    .type resolve, %function
resolve:
#if defined(__x86_64__)
    /* eax = index. On entry rsp is 8 off a multiple of 16, as at any function's start. */
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $192, %rsp
    movq %rdi, (%rsp); movq %rsi, 8(%rsp); movq %rdx, 16(%rsp)
    movq %rcx, 24(%rsp); movq %r8, 32(%rsp); movq %r9, 40(%rsp)
    movaps %xmm0, 64(%rsp); movaps %xmm1, 80(%rsp); movaps %xmm2, 96(%rsp); movaps %xmm3, 112(%rsp)
    movaps %xmm4, 128(%rsp); movaps %xmm5, 144(%rsp); movaps %xmm6, 160(%rsp); movaps %xmm7, 176(%rsp)
    movl %eax, %edi
    call gp_resolve
    movq %rax, %r11
    movaps 64(%rsp), %xmm0; movaps 80(%rsp), %xmm1; movaps 96(%rsp), %xmm2; movaps 112(%rsp), %xmm3
    movaps 128(%rsp), %xmm4; movaps 144(%rsp), %xmm5; movaps 160(%rsp), %xmm6; movaps 176(%rsp), %xmm7
    movq (%rsp), %rdi; movq 8(%rsp), %rsi; movq 16(%rsp), %rdx
    movq 24(%rsp), %rcx; movq 32(%rsp), %r8; movq 40(%rsp), %r9
    leave
    .cfi_def_cfa %rsp, 8
    jmp *%r11
    .cfi_endproc
#else
    /* w17 = index */
    .cfi_startproc
    stp x29, x30, [sp, #-224]!
    .cfi_def_cfa_offset 224
    .cfi_offset x29, -224
    .cfi_offset x30, -216
    stp x0, x1, [sp, #16]; stp x2, x3, [sp, #32]; stp x4, x5, [sp, #48]; stp x6, x7, [sp, #64]
    str x8, [sp, #80]
    stp q0, q1, [sp, #96]; stp q2, q3, [sp, #128]; stp q4, q5, [sp, #160]; stp q6, q7, [sp, #192]
    mov w0, w17
    bl gp_resolve
    mov x16, x0
    ldp q0, q1, [sp, #96]; ldp q2, q3, [sp, #128]; ldp q4, q5, [sp, #160]; ldp q6, q7, [sp, #192]
    ldr x8, [sp, #80]
    ldp x0, x1, [sp, #16]; ldp x2, x3, [sp, #32]; ldp x4, x5, [sp, #48]; ldp x6, x7, [sp, #64]
    ldp x29, x30, [sp], #224
    br x16
    .cfi_endproc
#endif
"""


def forwarders(symbols: list[str], hooked: set[str]) -> str:
    """The forwarders, the slots, and the names by number."""
    out = ["/* Made by generate.py; not for editing. */", RESOLVE]
    for index, symbol in enumerate(symbols):
        out.append(f"    .p2align 4\n    .hidden real_{symbol}\n    .globl real_{symbol}")
        out.append(f"    .type real_{symbol}, %function\nFORWARDER(real_{symbol}, {index})")
        if symbol not in hooked:
            out.append(
                f"    .globl {symbol}\n    .type {symbol}, %function\n    .set {symbol}, real_{symbol}"
            )
    out += ['    .section .rodata,"a"', "    .hidden gp_names", "    .globl gp_names", "gp_names:"]
    out += [f'    .asciz "{symbol}"' for symbol in symbols]
    out += ["    .p2align 1", "    .hidden gp_name_at", "    .globl gp_name_at", "gp_name_at:"]
    offset = 0
    for symbol in symbols:
        out.append(f"    .short {offset}")
        offset += len(symbol) + 1
    if offset > 0xFFFF:
        raise SystemExit("the names no longer fit 16-bit offsets")
    out += ["    .bss", "    .p2align 6", "    .hidden gp_slots", "    .globl gp_slots"]
    out += ["    .type gp_slots, %object", f"    .size gp_slots, {8 * len(symbols)}"]
    out += [f"gp_slots: .zero {8 * len(symbols)}", '    .section .note.GNU-stack,"",%progbits', ""]
    return "\n".join(out)


def numbers(symbols: list[str]) -> str:
    """The header: GP_SYM_X for each symbol."""
    rows = [f"    GP_SYM_{symbol}," for symbol in symbols]
    return "\n".join(
        ["/* Made by generate.py; not for editing. */", "enum {", *rows, "    GP_SYMBOLS,", "};", ""]
    )


def main() -> None:
    """Reads the two tables, writes the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=Path, required=True)
    parser.add_argument("--hooks", type=Path, required=True)
    parser.add_argument("--asm", type=Path, required=True)
    parser.add_argument("--header", type=Path, required=True)
    args = parser.parse_args()
    symbols = args.symbols.read_text(encoding="ascii").split()
    hooked = HOOK.findall(args.hooks.read_text(encoding="utf-8"))
    if unknown := set(hooked) - set(symbols):
        raise SystemExit(f"{args.hooks} hooks what is not in {args.symbols}: {' '.join(sorted(unknown))}")
    if len(set(hooked)) != len(hooked) or len(set(symbols)) != len(symbols):
        raise SystemExit(f"a name stands twice in {args.hooks} or {args.symbols}")
    args.asm.write_text(forwarders(symbols, set(hooked)), encoding="ascii")
    args.header.write_text(numbers(symbols), encoding="ascii")


if __name__ == "__main__":
    main()
