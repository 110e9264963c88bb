"""The pages that the daemon shares with a container: its policy and its ledger.

    <folder>/                0700
    <folder>/ledger/         0700; a tmpfs of exactly the ledger's size: growing the file fills nothing
    <folder>/ledger/ledger   0666; preallocated; the container's processes account in it
    <folder>/ld.so.preload   0644; of a container, see shim/preload.py
    <folder>/policy          0644; limits and paths, read-only in the container; written last

A container has the files themselves mounted, so the folder keeps everybody else of the host from them: its name, a
secret, is told in every list of mounts. A process of the host (`gpuportion exec`) comes by the path, and so could
anybody: there the ledger is its user's alone, 0600, and the folders are 0711.

The policy is ours alone: it is mapped here for a live resize. The ledger is written by the container and
hostile: it is only ever read into a copy (a mapped file that somebody truncates kills its reader), opened
without waiting (a lease would hold an open for 45 seconds), and any content gives an answer. A crash half
way leaves a folder without a policy, or with a part of one, which is none; `remove` takes it away like any other.
What is made and removed is so in one call each (libcap_mem/python), without Python's lock. Knows nothing of grants,
containers' lives or placement.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from gpuportion._region import ffi, lib
from gpuportion.allocator.fault_points import here, next_of
from gpuportion.allocator.page_values import (
    GpuLimit,
    GpuUse,
    LedgerView,
    Pages,
    Policy,
    Process,
    RefusalNote,
)

__all__ = [
    "PRELOAD",
    "BadPageError",
    "GpuLimit",
    "GpuUse",
    "LedgerView",
    "Pages",
    "Policy",
    "Process",
    "RefusalNote",
    "create",
    "holders",
    "read_ledger",
    "read_policy",
    "remove",
    "set_limit",
    "set_unseen",
    "write_note",
]

MAX_GPUS: Final = int(lib.GP_MAX_GPUS)
CELLS: Final = int(lib.GP_CELLS)
POLICY_BYTES: Final = int(ffi.sizeof("gp_policy"))  # of its fixed part
LARGEST_POLICY: Final = int(lib.gp_policy_size(lib.GP_LAYOUT_VERSION, MAX_GPUS))
LARGEST_LIMIT: Final = (1 << 62) - 1
LONGEST_NAME: Final = int(ffi.sizeof(ffi.new("gp_policy *").container)) - 1
FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
PRELOAD: Final = "ld.so.preload"
PLACES: Final = {
    lib.GP_FOLDER_MADE: "",
    lib.GP_LEDGER_FOLDER_MADE: "/ledger",
    lib.GP_LEDGER_MOUNTED: "/ledger",
    lib.GP_LEDGER_WRITTEN: "/ledger/ledger",
    lib.GP_PRELOAD_WRITTEN: f"/{PRELOAD}",
    lib.GP_POLICY_WRITTEN: "/policy",
}
"""What is made in each step, by its path below the folder."""
STOPS: Final = {"ledger-mounted": lib.GP_LEDGER_MOUNTED, "ledger-written": lib.GP_LEDGER_WRITTEN}
"""The last step for a daemon that dies at a place (fault_points.py)."""
NAME: Final = slice(
    ffi.offsetof("gp_policy", "container"), ffi.offsetof("gp_policy", "container") + LONGEST_NAME + 1
)
"""Where a policy has the container's name."""
READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class BadPageError(Exception):
    """A policy that is none, or of another version: it was not written by this gpuportion."""


def create(  # noqa: PLR0913 (each is a value of the pages' own)
    folder: str,
    limits: Sequence[GpuLimit],
    *,
    container: str,
    libcuda: str,
    libnvml: str,
    ledger: str,
    preload: bytes = b"",
    label: str = "",
    owner: int | None = None,
) -> Pages:
    """Make `folder` and in it an empty ledger, the ld.so.preload (where it's not empty) and, at last, the policy.

    `libcuda`, `libnvml`, `ledger`: paths as the container sees them. `label`: the spec's SELinux mount
    label. `owner`: the user who alone, with root, may open the ledger, by its path on the host; None: whoever has
    the file mounted. Where this process may not mount, the ledger is a plain file, and the result's note says so.
    ValueError for values that no page can hold, OSError as it comes; call `remove` after either.
    """
    if '"' in label or "\0" in label:
        raise ValueError(f"{label!r} is no SELinux label")
    page = _policy_page(tuple(limits), container, libcuda, libnvml, ledger)
    made = lib.gp_make_pages(
        os.fsencode(folder),
        len(limits),
        -1 if owner is None else owner,
        label.encode(),
        preload,
        len(preload),
        page,
        len(page),
        STOPS.get(next_of(STOPS), 0),
    )
    if made.problem:
        raise OSError(made.problem, os.strerror(made.problem), folder + PLACES[made.step])
    here("ledger-mounted")
    here("ledger-written")
    note = "" if made.own_file_system else _note(folder)
    return Pages(f"{folder}/policy", f"{folder}/ledger/ledger", bool(made.own_file_system), note)


def _note(folder: str) -> str:
    return f"{folder}/ledger is no file system of its own (mounting is not permitted): what is in it can grow"


def remove(folder: str) -> None:
    """Take all of `folder` away, whatever of it is there. A container that still has it keeps its ledger."""
    for trouble in remove_all([(folder, "")]):
        if trouble is not None:
            raise trouble


def remove_all(gone: Sequence[tuple[str, str]]) -> list[OSError | None]:
    """`remove` of several folders, in which no other thread of this process is held up; each one's second path is a
    file that goes when the folder has gone, or empty. What each could not be removed for."""
    folders, notes = (
        b"".join(os.fsencode(path) + b"\0" for path in paths) for paths in zip(*gone, strict=True)
    )
    problems = ffi.new("int[]", len(gone))
    lib.gp_unmount_ledgers(folders, len(gone), problems)
    here("ledger-unmounted")
    lib.gp_remove_pages(folders, notes, len(gone), problems)
    return [
        OSError(problem, os.strerror(problem), folder) if problem else None
        for (folder, _), problem in zip(gone, problems, strict=True)
    ]


def write_note(path: bytes, data: bytes) -> None:
    """A file of root alone with this in it, in place of any that is there: that one is changed at one moment. A new one
    is there before it is whole. OSError as it comes."""
    problem = lib.gp_write_note(path, data, len(data))
    if problem:
        raise OSError(problem, os.strerror(problem), os.fsdecode(path))


def set_limit(policy_path: str, uuid: bytes, limit: int) -> None:
    """Change one GPU's limit for all processes of the container, from their next allocation on.

    LookupError if the policy has no such GPU, ValueError for a limit that no page can hold.
    """
    _check_limit(limit)
    with _mapped_policy(policy_path) as page:
        for index in range(page.gpus):
            if bytes(ffi.buffer(page.gpu[index].uuid)) == uuid:
                lib.gp_policy_set_limit(page, index, limit)
                return
    raise LookupError(f"{policy_path} has no GPU {uuid.hex()}")


def set_unseen(policy_path: str, gpu: int, process: Process, held: int) -> None:
    """Tell a process of the container that it holds `held` bytes on its GPU number `gpu` that it doesn't see.

    It charges them to itself at its next call. Nothing happens where the page is of a layout without that.
    """
    with _mapped_policy(policy_path) as page:
        lib.gp_policy_set_unseen(page, gpu, process.cell, process.generation, held)


def read_policy(path: str) -> Policy:
    """What the policy at `path` says. BadPageError if it is none, OSError if it cannot be read."""
    fd = os.open(path, READ)
    try:
        page = _policy_of(os.pread(fd, LARGEST_POLICY, 0), path)
    finally:
        os.close(fd)
    gpus = tuple(
        GpuLimit(bytes(ffi.buffer(gpu.uuid)), gpu.limit, gpu.context) for gpu in page.gpu[0 : page.gpus]
    )
    return Policy(
        container=_text(page.container),
        generation=page.generation,
        libcuda=_text(page.libcuda),
        libnvml=_text(page.libnvml),
        ledger=_text(page.ledger),
        gpus=gpus,
    )


def read_ledger(path: str, gpus: int = 0) -> LedgerView:
    """What the container's processes say they hold. Never raises for what is in the file, or that it is gone.

    `gpus`: how many GPUs the ledger was made for; a damaged one then shows so many unused ones (0: ask the
    file). Changes go on during the reading: figures of one GPU may be those of neighbouring moments.
    """
    nothing = tuple(GpuUse() for _ in range(gpus))
    try:
        fd = os.open(path, READ)
    except OSError as problem:
        return LedgerView(nothing, damaged=f"it cannot be opened: {problem.strerror}")
    try:
        copy, damaged = _copy_of(fd, gpus)
        if damaged:
            return LedgerView(nothing, damaged=damaged)
        return LedgerView(tuple(_gpu_use(fd, copy, gpu) for gpu in range(copy.gpus)), _notes(copy))
    except OSError as problem:
        return LedgerView(nothing, damaged=f"it cannot be read: {problem.strerror}")
    finally:
        os.close(fd)


def holders(path: str) -> int:
    """How many accounts in the ledger have a living holder: 0 means that nobody uses the GPU through it.

    A process that ended while a forked child of it lives counts. 0 for a ledger that is gone.
    """
    try:
        fd = os.open(path, READ)
    except BlockingIOError:
        return 1  # who keeps us out by a lease on it, has it
    except OSError:
        return 0
    try:
        if _unlocked(fd, CELLS, CELLS):
            return 0
        return sum(not _unlocked(fd, CELLS + cell, 1) for cell in range(CELLS))
    finally:
        os.close(fd)


def _check_limit(limit: int) -> None:
    if not 0 <= limit <= LARGEST_LIMIT:
        raise ValueError(f"{limit} bytes is no limit that a policy can hold")


def _policy_page(limits: tuple[GpuLimit, ...], container: str, *paths: str) -> bytes:
    name = container.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore").encode()
    page = _nameless_page(limits, *paths)
    return b"".join((page[: NAME.start], name.ljust(LONGEST_NAME + 1, b"\0"), page[NAME.stop :]))


@functools.lru_cache(maxsize=64)
def _nameless_page(limits: tuple[GpuLimit, ...], libcuda: str, libnvml: str, ledger: str) -> bytes:
    """The policy of a container without a name: most ask for what another had, of the same GPU."""
    if not 1 <= len(limits) <= MAX_GPUS:
        raise ValueError(f"a policy holds 1 to {MAX_GPUS} GPUs, not {len(limits)}")
    page = _new_policy(len(limits))
    page.magic, page.version, page.gpus = lib.GP_POLICY_MAGIC, lib.GP_LAYOUT_VERSION, len(limits)
    page.generation = 1
    for name, path in (("libcuda", libcuda), ("libnvml", libnvml), ("ledger", ledger)):
        setattr(page, name, _path_bytes(name, path))
    for entry, given in zip(page.gpu, limits, strict=False):
        if len(given.uuid) != 16:
            raise ValueError(f"a GPU's UUID has 16 bytes, not {len(given.uuid)}")
        _check_limit(given.limit)
        _check_limit(given.context)
        ffi.buffer(entry.uuid)[:] = given.uuid
        entry.limit, entry.context = given.limit, given.context
    return bytes(ffi.buffer(page, int(lib.gp_policy_size(page.version, page.gpus))))


def _path_bytes(name: str, path: str) -> bytes:
    raw = os.fsencode(path)
    if b"\0" in raw or len(raw) >= lib.GP_PATH:
        raise ValueError(f"{name}: {path!r} does not fit a policy ({lib.GP_PATH - 1} bytes)")
    return raw


def _policy_of(data: bytes, path: str) -> Any:
    """The page in `data`, checked, as cffi gives it."""
    if len(data) < POLICY_BYTES:
        raise BadPageError(f"{path} has {len(data)} bytes; a policy has {POLICY_BYTES} at least")
    page = _new_policy(MAX_GPUS)
    ffi.memmove(page, data, len(data))
    if page.magic != lib.GP_POLICY_MAGIC or not 1 <= page.gpus <= MAX_GPUS:
        raise BadPageError(f"{path} is not a policy")
    size = lib.gp_policy_size(page.version, page.gpus)
    if not size:
        raise BadPageError(
            f"{path} has layout {page.version}; this gpuportion knows "
            f"{lib.GP_OLDEST_LAYOUT} to {lib.GP_LAYOUT_VERSION}"
        )
    if len(data) < size:
        raise BadPageError(f"{path} has {len(data)} bytes of {size}")
    return page


def _new_policy(gpus: int) -> Any:
    return ffi.new("gp_policy *", {"cells": gpus})


@contextmanager
def _mapped_policy(path: str) -> Iterator[Any]:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        page = _policy_of(os.pread(fd, LARGEST_POLICY, 0), path)
        size = int(lib.gp_policy_size(page.version, page.gpus))
        with mmap.mmap(fd, size) as mapped, ffi.from_buffer("gp_policy *", mapped) as page:
            yield page
    finally:
        os.close(fd)


def _text(array: Any) -> str:
    return str(ffi.string(array).decode(errors="replace"))


def _copy_of(fd: int, gpus: int) -> tuple[Any, str]:
    """The file's bytes as cffi gives them, and why they are no ledger (then only the reason is of use)."""
    data = os.pread(fd, int(lib.gp_ledger_size(gpus or MAX_GPUS)), 0)
    header_bytes = int(ffi.sizeof("gp_ledger_file"))
    if len(data) < header_bytes:
        return None, f"it has {len(data)} bytes, less than its header"
    copy = ffi.new(
        "gp_ledger_file *", {"gpu": -(-(len(data) - header_bytes) // int(ffi.sizeof("gp_ledger_gpu")))}
    )
    ffi.memmove(copy, data, len(data))
    if not lib.gp_ledger_sound(copy, len(data), gpus or copy.gpus):
        return None, "its header is not what was written"
    return copy, ""


def _gpu_use(fd: int, copy: Any, gpu: int) -> GpuUse:
    block = copy.gpu[gpu]
    cells = ffi.new("uint32_t[]", CELLS)
    held = cells[0 : lib.gp_ledger_holding(copy, gpu, cells)]
    processes = tuple(_process(copy, gpu, cell) for cell in held if not _unlocked(fd, CELLS + cell, 1))
    used = sum(each.used for each in processes)
    return GpuUse(used, block.peak, block.refusals, processes, block.mended)


def _process(copy: Any, gpu: int, cell: int) -> Process:
    kept = copy.gpu[gpu].share[cell]
    pid = copy.cell[cell].pid & 0x7FFFFFFF
    share = int(lib.gp_ledger_share(copy, gpu, cell))
    generation = copy.cell[cell].generation
    return Process(pid, share, kept.peak, kept.refusals, min(kept.unseen, share), cell, generation)


def _notes(copy: Any) -> tuple[RefusalNote, ...]:
    """The last refusals, oldest first; one that is just being written is left out."""
    notes = (
        RefusalNote(
            note.number, note.time, note.gpu, note.pid, _text(note.api), note.bytes, note.used, note.limit
        )
        for place, note in enumerate(copy.refusal)
        if note.number and (note.number - 1) % lib.GP_REFUSALS == place
    )
    return tuple(sorted(notes, key=lambda note: note.number))


def _unlocked(fd: int, first: int, count: int) -> bool:
    """Whether nobody holds a lock on these bytes."""
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    return bool(FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] == fcntl.F_UNLCK)
