"""allocator/pages.py: pages are made whole, taken away whole, and read whatever is in them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuportion.allocator import fault_points, pages
from gpuportion.allocator.pages import GpuLimit, Pages

UUID: Final = bytes(range(16))
OTHER: Final = bytes(range(16, 32))
LIMITS: Final = (GpuLimit(UUID, 4 << 30, context=7), GpuLimit(OTHER, 2 << 30))
PATHS: Final[dict[str, Any]] = {
    "libcuda": "/.gpuportion/driver/libcuda.so.1",
    "libnvml": "/n",
    "ledger": "/.gpuportion/ledger",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a tmpfs")


def create(folder: str) -> Pages:
    return pages.create(folder, LIMITS, container="train", **PATHS)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    made = str(tmp_path / "grant")
    yield made
    pages.remove(made)


@pytest.fixture
def made(folder: str) -> Pages:
    return create(folder)


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_a_policy_says_what_it_was_given(made: Pages) -> None:
    """Limits in their order, paths and name."""
    policy = pages.read_policy(made.policy)
    assert policy == pages.Policy("train", 1, PATHS["libcuda"], PATHS["libnvml"], PATHS["ledger"], LIMITS)


def test_files_have_the_modes_of_the_contract(folder: str, made: Pages) -> None:
    """Any user of the container can account; nobody but root gets to the file by its folder."""
    modes = {
        name: os.stat(f"{folder}/{name}").st_mode & 0o777 for name in ("policy", "ledger", "ledger/ledger")
    }
    assert modes == {"policy": 0o644, "ledger": 0o700, "ledger/ledger": 0o666}


@pytest.mark.parametrize(
    ("place", "there"),
    [("ledger-mounted", {"ledger"}), ("ledger-written", {"ledger", "ledger/ledger"})],
)
def test_the_policy_comes_last(place: str, there: set[str], folder: str) -> None:
    """A maker that is killed half way leaves a ledger without a policy, never a policy without its ledger."""
    code = (
        "import sys; from gpuportion.allocator import fault_points, pages\n"
        "fault_points.arm({fault_points.VARIABLE: sys.argv[1]})\n"
        "limits = [pages.GpuLimit(bytes(16), 1 << 30)]\n"
        "pages.create(sys.argv[2], limits, container='c', libcuda='/c', libnvml='/n', ledger='/l')"
    )
    command = [sys.executable, "-c", code, place, folder]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    found = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
    pages.remove(folder)
    assert found == there


@needs_root
def test_a_ledger_with_an_owner_is_that_users_alone(folder: str) -> None:
    """A process of the host comes by the path, where a container has the file mounted."""
    made = pages.create(folder, LIMITS, container="p", owner=54321, **PATHS)
    status = os.stat(made.ledger)
    assert (status.st_uid, status.st_mode & 0o777) == (54321, 0o600)
    assert {os.stat(f"{folder}/{name}").st_mode & 0o777 for name in ("", "ledger")} == {0o711}
    assert os.stat(made.policy).st_uid == 0


def test_modes_do_not_depend_on_the_umask(folder: str) -> None:
    """A daemon with umask 077 makes the same files."""
    before = os.umask(0o077)
    try:
        made = create(folder)
    finally:
        os.umask(before)
    assert os.stat(made.ledger).st_mode & 0o777 == 0o666
    assert os.stat(made.policy).st_mode & 0o777 == 0o644
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_a_new_ledger_is_empty_and_preallocated(made: Pages) -> None:
    """No use, no holders, and room for every page: a process never meets SIGBUS for want of memory."""
    view = pages.read_ledger(made.ledger)
    assert view == pages.LedgerView(gpus=(pages.GpuUse(), pages.GpuUse()))
    assert pages.holders(made.ledger) == 0
    status = os.stat(made.ledger)
    assert status.st_blocks * 512 >= status.st_size


def test_a_ledger_of_one_gpu_is_small(folder: str) -> None:
    """It is locked into the host's memory for each container: below 100 KiB."""
    made = pages.create(folder, LIMITS[:1], container="c", **PATHS)
    assert os.stat(made.ledger).st_size < 100 << 10


@needs_root
def test_a_ledger_cannot_grow_beyond_its_own_file_system(made: Pages) -> None:
    """Whatever a container writes at its end finds no room, on a file system that is its own."""
    assert made.own_file_system
    whole = os.statvfs(made.ledger)
    assert 0 <= whole.f_blocks * whole.f_frsize - os.stat(made.ledger).st_size < whole.f_frsize
    with pytest.raises(OSError, match="No space left"), open(made.ledger, "ab", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@needs_root
def test_the_ledgers_file_system_holds_one_file_without_programs_or_devices(folder: str, made: Pages) -> None:
    """nosuid, nodev, noexec; a second file finds no inode."""
    line = next(line for line in mounts().splitlines() if f"{folder}/ledger " in line)
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    with pytest.raises(OSError, match="No space left"):
        Path(f"{folder}/ledger/second").touch()


def test_removal_leaves_nothing_and_can_be_repeated(folder: str) -> None:
    """No file, no mount, no complaint the second time."""
    create(folder)
    pages.remove(folder)
    pages.remove(folder)
    assert not os.path.exists(folder)
    assert folder not in mounts()


def test_whatever_else_lies_there_goes_too(folder: str, tmp_path: Path) -> None:
    """Folders with what is in them, links, but nothing that a link leads to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    create(folder)
    for number in range(200):
        Path(folder, f"a file with a name that is not short {number}").touch()
    Path(folder, "in", "it").mkdir(parents=True)
    Path(folder, "in", "it", "file").touch()
    Path(folder, "in", "link").symlink_to(tmp_path / "elsewhere")
    pages.remove(folder)
    assert not os.path.exists(folder) and os.listdir(tmp_path / "elsewhere") == ["kept"]


@needs_root
def test_a_ledger_that_was_mounted_on_twice_goes(folder: str) -> None:
    """One call takes both away."""
    create(folder)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{folder}/ledger"], check=True)
    pages.remove(folder)
    assert not os.path.exists(folder) and folder not in mounts()


@needs_root
def test_a_container_that_still_has_the_ledger_does_not_hold_up_its_removal(folder: str) -> None:
    """An open file keeps its contents; the folder goes at once."""
    made = create(folder)
    with open(made.ledger, "r+b") as held:
        pages.remove(folder)
        assert not os.path.exists(folder)
        assert len(held.read()) > 4096


def die() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["ledger-mounted", "ledger-written"])
def test_a_creation_that_broke_off_can_be_removed_and_begun_anew(folder: str, place: str) -> None:
    """Whatever the daemon died in: no policy, so not a grant's pages; one call takes the rest away."""
    fault_points.arm({fault_points.VARIABLE: place}, end=die)
    try:
        with pytest.raises(KeyboardInterrupt):
            create(folder)
    finally:
        fault_points.disarm()
    assert not os.path.exists(f"{folder}/policy")
    pages.remove(folder)
    assert not os.path.exists(folder)
    assert pages.read_policy(create(folder).policy).container == "train"


def test_a_part_of_a_policy_is_none(folder: str) -> None:
    """As a daemon leaves it that is killed while it writes the last file."""
    made = create(folder)
    os.truncate(made.policy, os.stat(made.policy).st_size - 1)
    with pytest.raises(pages.BadPageError, match="has 6143 bytes of 6144"):
        pages.read_policy(made.policy)


@pytest.mark.parametrize("there", ["policy", "ld.so.preload"])
def test_a_file_that_is_there_is_not_written_over(folder: str, there: str) -> None:
    """It is named, and who asked gets the kernel's reason."""
    os.mkdir(folder)
    Path(folder, there).write_text("somebody's")
    with pytest.raises(FileExistsError) as caught:
        pages.create(folder, LIMITS, container="c", preload=b"/x\n", **PATHS)
    assert caught.value.filename == f"{folder}/{there}" and Path(folder, there).read_text() == "somebody's"


def test_what_cannot_be_made_is_named(tmp_path: Path, folder: str) -> None:
    """A folder without its parent, one that is a file, and a path that is too long."""
    (tmp_path / "file").touch()
    for path in ("no/grant", "file", "x" * 5000):
        with pytest.raises(OSError, match="Errno") as caught:
            create(f"{tmp_path}/{path}")
        assert caught.value.filename in (f"{tmp_path}/{path}", f"{tmp_path}/{path}/ledger")


def test_a_containers_preload_comes_with_its_pages(folder: str) -> None:
    """0644: the loader leaves out one that a user can't read. Whoever gives none has none."""
    pages.create(folder, LIMITS, container="c", preload=b"/x\n", **PATHS)
    file = Path(folder, pages.PRELOAD)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"/x\n", 0o644)
    pages.remove(folder)
    create(folder)
    assert not file.exists()


def test_pages_differ_where_their_containers_do(tmp_path: Path) -> None:
    """Name, limits and paths of one are in no other's."""
    for name, size, library in (
        ("a", 1, "/c"),
        ("bb", 1, "/c"),
        ("a", 2, "/c"),
        ("a", 1, "/d"),
        ("", 1, "/c"),
    ):
        folder = f"{tmp_path}/{name}{size}{library[1:]}"
        limits = (GpuLimit(UUID, size),)
        made = pages.create(folder, limits, container=name, libcuda=library, libnvml="/n", ledger="/l")
        policy = pages.read_policy(made.policy)
        pages.remove(folder)
        assert (policy.container, policy.gpus, policy.libcuda) == (name, limits, library)


@needs_root
def test_nothing_of_an_old_grant_is_in_a_new_one(folder: str) -> None:
    """A ledger begins as zeros after its header, whoever wrote in the last one."""
    Path(create(folder).ledger).write_bytes(b"\xff" * 80000)
    pages.remove(folder)
    assert not any(Path(create(folder).ledger).read_bytes()[128:])


def test_without_the_right_to_mount_the_ledger_is_a_plain_file_and_it_is_said() -> None:
    """`create` as an ordinary user: the pages work, the note says what is missing."""
    program = (
        "import os, sys\n"
        "from gpuportion.allocator import pages\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "made = pages.create(sys.argv[1], [pages.GpuLimit(bytes(16), 1)], container='c', libcuda='/c',\n"
        "                    libnvml='/n', ledger='/l')\n"
        "print(made.own_file_system, made.note)\n"
        "print(oct(os.stat(f'{sys.argv[1]}/ledger').st_mode & 0o777))\n"
        "pages.read_policy(made.policy), pages.remove(sys.argv[1]), pages.remove(sys.argv[1])\n"
        "print(os.path.exists(sys.argv[1]))\n"
    )
    with tempfile.TemporaryDirectory() as place:  # pytest keeps its own from other users
        os.chmod(place, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", program, f"{place}/grant"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0].startswith("False ") and "mounting is not permitted" in told[0]
    assert told[1:] == ["0o700", "False"]


def test_a_limit_changes_alone_and_the_generation_tells(made: Pages) -> None:
    """One GPU's limit; the other one's, paths and name stay."""
    pages.set_limit(made.policy, OTHER, 5 << 30)
    policy = pages.read_policy(made.policy)
    assert [gpu.limit for gpu in policy.gpus] == [4 << 30, 5 << 30]
    assert (policy.generation, policy.container) == (2, "train")


@pytest.mark.parametrize("limit", [-1, 1 << 62, 1 << 64])
def test_a_limit_that_is_none_changes_nothing(made: Pages, limit: int) -> None:
    """A bad value never means "no limit"."""
    with pytest.raises(ValueError, match="no limit that a policy can hold"):
        pages.set_limit(made.policy, UUID, limit)
    assert pages.read_policy(made.policy).gpus == LIMITS


def test_a_gpu_that_was_not_granted_cannot_be_resized(made: Pages) -> None:
    """It is named."""
    with pytest.raises(LookupError, match="has no GPU ffff"):
        pages.set_limit(made.policy, b"\xff" * 16, 1)


BAD: Final = [
    ({"limits": ()}, "1 to 16 GPUs, not 0"),
    ({"limits": LIMITS * 9}, "1 to 16 GPUs, not 18"),
    ({"limits": (GpuLimit(b"short", 1),)}, "16 bytes, not 5"),
    ({"limits": (GpuLimit(UUID, -1),)}, "-1 bytes is no limit"),
    ({"limits": (GpuLimit(UUID, 1, context=1 << 63),)}, "is no limit"),
    ({"libcuda": "/" + "x" * 255}, "libcuda: .* does not fit"),
    ({"ledger": "/a\0b"}, "ledger: .* does not fit"),
    ({"label": 'a",size=1g,context="b'}, "no SELinux label"),
]


@pytest.mark.parametrize(("changed", "complaint"), BAD, ids=lambda value: str(value)[:30])
def test_what_no_page_can_hold_is_refused(folder: str, changed: dict[str, object], complaint: str) -> None:
    """Before a policy is there."""
    arguments = {"limits": LIMITS, "container": "c", **PATHS, **changed}
    with pytest.raises(ValueError, match=complaint):
        pages.create(folder, arguments.pop("limits"), **arguments)
    assert not os.path.exists(f"{folder}/policy")


@given(name=st.text(max_size=200))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_name_of_a_container_fits(folder: str, name: str) -> None:
    """Too long ones are cut at a character, never within one."""
    made = pages.create(folder, LIMITS, container=name, **PATHS)
    told = pages.read_policy(made.policy).container
    assert name.encode(errors="replace").decode().startswith(told)
    pages.remove(folder)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 5000, b"\0" * 2048])
def test_what_is_no_policy_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """It is neither read nor resized."""
    path = tmp_path / "policy"
    path.write_bytes(content)
    for use in (lambda: pages.read_policy(str(path)), lambda: pages.set_limit(str(path), UUID, 1)):
        with pytest.raises(pages.BadPageError):
            use()


NOTHING: Final = (pages.GpuUse(), pages.GpuUse())


@pytest.mark.parametrize("size", [0, 1, 127, 4096, 12287, 12288, 100000])
def test_a_truncated_ledger_is_damaged(made: Pages, size: int) -> None:
    """The daemon shows no use, and says why."""
    os.truncate(made.ledger, size)
    view = pages.read_ledger(made.ledger, gpus=2)
    assert view.gpus == NOTHING
    assert view.damaged


def test_a_ledger_that_is_gone_or_something_else_is_damaged(made: Pages, tmp_path: Path) -> None:
    """A missing file, a folder, a FIFO that nobody writes, a link: nothing waits, nothing raises."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(made.ledger)
    for path in ("missing", "fifo", "link", "."):
        view = pages.read_ledger(str(tmp_path / path), gpus=2)
        assert (view.gpus, bool(view.damaged)) == (NOTHING, True)
        assert pages.holders(str(tmp_path / path)) == 0


@needs_root
def test_a_lease_on_the_ledger_holds_nobody_up(made: Pages) -> None:
    """It would make a plain open wait for 45 seconds; who has one counts as a holder."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(made.ledger, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert pages.read_ledger(made.ledger, gpus=2).damaged.startswith("it cannot be opened")
        assert pages.holders(made.ledger) == 1
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = str(tmp_path_factory.mktemp("empty") / "grant")
    content = Path(create(folder).ledger).read_bytes()
    pages.remove(folder)
    return content


scribbles = st.lists(st.tuples(st.integers(0, 160_000), st.binary(min_size=1, max_size=64)), max_size=40)


@given(scribbles=scribbles, filler=st.sampled_from([None, 0xFF, 0x01, 0x80]), spare_header=st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_content_of_a_ledger_troubles_its_reader(
    tmp_path_factory: pytest.TempPathFactory,
    empty_ledger: bytes,
    scribbles: list[tuple[int, bytes]],
    filler: int | None,
    spare_header: bool,
) -> None:
    """Any bytes give a view: as many GPUs as asked for, sums that fit, pids that are pids."""
    path = tmp_path_factory.getbasetemp() / "scribbled"
    data = bytearray(empty_ledger)
    if filler is not None:
        data[128 if spare_header else 0 :] = bytes([filler]) * (len(data) - (128 if spare_header else 0))
    for where, what in scribbles:
        data[where : where + len(what)] = what
    path.write_bytes(data)
    view = pages.read_ledger(str(path), gpus=2)
    assert len(view.gpus) == 2
    for gpu in view.gpus:
        assert 0 <= gpu.used < 1 << 71
        assert all(0 <= process.pid < 1 << 31 and process.used < 1 << 62 for process in gpu.processes)
    assert len(view.notes) <= 16
    assert pages.holders(str(path)) == 0
    pages.read_ledger(str(path))
