"""gpuportion-runtime, as users get it and under the sanitizers: what it asks, edits and becomes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.errors import TEMPLATES
from gpuportion.shim import request
from tests.support import native
from tests.support.launcher import REQUEST, Launcher, config
from tests.support.scripted_daemon import ScriptedDaemon

EDITED = json.dumps(config("EDITED=1")).encode()
DOCKER_REWORDS = ("permission denied", "no such file or directory", "executable file not found")


@pytest.fixture(params=["gpuportion-runtime", "gpuportion-runtime-sanitized"])
def build(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def launcher(build: str, tmp_path: Path) -> Launcher:
    return Launcher(tmp_path, build)


def done(_: wire.Message) -> wire.Message:
    return wire.Message({}, EDITED)


def refused_with(launcher: Launcher, result: subprocess.CompletedProcess[bytes]) -> str:
    """The one refusal, which stands in the log and on stderr and nowhere else."""
    assert result.returncode == 1
    assert result.stdout == b""
    assert launcher.recorded() is None
    assert launcher.leftovers() == []
    text = result.stderr.decode().removesuffix("\n")
    if launcher.log.exists():
        assert launcher.logged()[-1]["msg"] == text
        assert launcher.logged()[-1]["level"] == "error"
    assert not any(phrase in text.lower() for phrase in DOCKER_REWORDS)
    return text


# What it becomes


@pytest.mark.parametrize(
    "words", [["state", "c1"], ["exec", "--process", "create", "c1"], ["features"], [], ["zzz"]]
)
def test_other_verbs_are_the_runtimes_at_once(launcher: Launcher, words: list[str]) -> None:
    """Arguments, environment and directory arrive as they were, without any daemon."""
    result = launcher.run("--root", "/r oot", *words, env={"LD_LIBRARY_PATH": "/opt", "EMPTY": ""})
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    seen = launcher.recorded()
    assert seen is not None
    assert seen["argv"] == [str(launcher.runtime), "--root", "/r oot", *words]
    expected = {**launcher.env, "LD_LIBRARY_PATH": "/opt", "EMPTY": ""}
    assert {key: value for key, value in seen["env"].items() if key != "LC_CTYPE"} == expected
    assert seen["cwd"] == str(launcher.bundle)


def test_it_is_the_same_process(launcher: Launcher) -> None:
    """execve, not fork: the engine's child is the runtime."""
    process = subprocess.Popen([launcher.program, "state", "c1"], env=launcher.env, cwd=launcher.bundle)
    assert process.wait(timeout=60) == 0
    seen = launcher.recorded()
    assert seen is not None
    assert seen["pid"] == process.pid


def test_descriptors_are_inherited_and_none_is_added(launcher: Launcher) -> None:
    """conmon hands pipes over by number; a grant's socket and files must not leak into the container."""
    launcher.write(config(REQUEST))
    pipe = os.pipe()
    with ScriptedDaemon(launcher.run_dir, done):
        result = launcher.run("create", "c1", pass_fds=pipe)
    assert result.returncode == 0, result.stderr
    seen = launcher.recorded()
    assert seen is not None
    assert set(seen["fds"]) == {"0", "1", "2", *map(str, pipe)}
    for fd in pipe:
        os.close(fd)


def test_the_engines_death_signal_and_signal_state_are_kept(launcher: Launcher) -> None:
    """containerd-shim sets PDEATHSIG=9 on its runtime; ignored and blocked signals are the engine's."""
    launcher.write(config(REQUEST))

    def as_containerd_does() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    with ScriptedDaemon(launcher.run_dir, done):
        result = launcher.run("create", "c1", preexec_fn=as_containerd_does)
    assert result.returncode == 0, result.stderr
    seen = launcher.recorded()
    assert seen is not None
    assert seen["pdeathsig"] == signal.SIGKILL
    assert int(seen["blocked"], 16) >> (signal.SIGUSR1 - 1) & 1
    assert int(seen["ignored"], 16) >> (signal.SIGUSR2 - 1) & 1


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_standard_descriptors_do_not_confuse_it(launcher: Launcher, closed: list[int]) -> None:
    """The text for stderr must never land in a file that was opened as descriptor 2."""
    launcher.write(config(REQUEST))

    def close_them() -> None:
        for fd in closed:
            os.close(fd)

    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", status=wire.REFUSED)):
        process = subprocess.run(
            [launcher.program, "--log", str(launcher.log), "create", "c1"],
            env=launcher.env,
            cwd=launcher.bundle,
            preexec_fn=close_them,
            check=False,
        )
    assert process.returncode == 1
    assert [entry["msg"] for entry in launcher.logged()] == ["GP101 no"]
    assert json.loads(launcher.config.read_bytes()) == config(REQUEST)


def test_version_is_told_before_the_runtimes(launcher: Launcher) -> None:
    """One line of our own, then whatever the runtime says."""
    result = launcher.run("--version")
    assert result.stdout.decode().startswith("gpuportion-runtime ")
    seen = launcher.recorded()
    assert seen is not None
    assert seen["argv"][1:] == ["--version"]


def test_the_program_loads_nothing() -> None:
    """Static: no interpreter, no dynamic section, so LD_PRELOAD and LD_AUDIT mean nothing to it."""
    for program in (native.built("gpuportion-runtime", "shim"), native.built("gpuportion-hook", "hooks")):
        elf = Path(program).read_bytes()
        offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
        kinds = {struct.unpack_from("<I", elf, offset + i * size)[0] for i in range(count)}
        assert kinds.isdisjoint({2, 3}), program  # PT_DYNAMIC, PT_INTERP


# Who asks nothing


def test_a_container_without_a_request_is_left_alone(launcher: Launcher) -> None:
    """Byte for byte, not even rewritten, and no daemon is needed."""
    text = launcher.write(json.dumps(config("MY_GPU_COUNT=1", "A=\\u0026\u00e9"), indent=3) + "\n\n")
    before = launcher.config.stat()
    result = launcher.create()
    assert result.returncode == 0, result.stderr
    assert launcher.config.read_bytes() == text
    after = launcher.config.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert launcher.recorded() is not None


MISSPELT = ["GPU_MEMORY_LIMITS", "gpu_memory_limit", "GPU_FRACTON", "Gpu_Count", "GPU_OUNT"]
KEYS = [*request.ENV_KEYS, *request.ALIASES, *MISSPELT]


@pytest.mark.parametrize(
    "text",
    [json.dumps(config(f"{key}=1")) for key in KEYS]
    + [json.dumps(config(annotations={name: "1"})) for name in request.ANNOTATION_KEYS]
    + [json.dumps(config(annotations={"GPUportion.io/memory": "1"}))]
    + [json.dumps(config(KEYS[0])), json.dumps(config(f"{KEYS[0]}=")), json.dumps(config(REQUEST), indent=1)]
    + [json.dumps(config(annotations={"gpuportion.io/memory-limit": "4G"}))]
    + [json.dumps(config(annotations={"gpuportion.io/memory-limit": "4G"})).replace("/", "\\/")]
    + [json.dumps(config(REQUEST)).replace("GPU_", "\\u0047PU_")]
    + [json.dumps(config(REQUEST)).replace("_", "\\u005F")]
    + [json.dumps(config(annotations={"gpuportion.io/mig": "x"})).replace(".io", "\\u002eio")],
)
def test_every_way_to_write_a_request_reaches_the_daemon(launcher: Launcher, text: str) -> None:
    """All keys, misspelt and empty ones, with escapes or without: none is taken for no request."""
    launcher.write(text)
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.create().returncode == 0
    assert [message.head["op"] for message in daemon.seen] == ["create"]


@pytest.mark.parametrize(
    "entry", [f"{name}=0.9" for name in request.FOREIGN] + ["MY_GPU_COUNT=1", "A=GPU_COUNT"]
)
def test_names_of_others_ask_nothing(launcher: Launcher, entry: str) -> None:
    """The same names that the daemon would pass over."""
    launcher.write(config(entry))
    assert launcher.create().returncode == 0
    assert launcher.recorded() is not None


def test_a_default_of_the_administrator_makes_everyone_ask(launcher: Launcher) -> None:
    """The flag file counts where root owns it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: gives a file away")
    launcher.write(config())
    flag = launcher.run_dir / "default-grant"
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.create().returncode == 0
        assert daemon.seen == []
        flag.write_text("")
        os.chown(flag, 65534, 65534)
        assert launcher.create().returncode == 0
        assert daemon.seen == []
        os.chown(flag, 0, 0)
        assert launcher.create().returncode == 0
        assert len(daemon.seen) == 1


# What is asked, and what comes of the answer


@pytest.mark.parametrize("verb", ["create", "run", "restore"])
def test_the_daemon_is_told_everything(launcher: Launcher, verb: str) -> None:
    """docs/protocol.md: verb, root, id, the absolute bundle; config.json, then the image's preload."""
    text = launcher.write(config(REQUEST))
    (launcher.rootfs / "etc/ld.so.preload").write_text("/usr/lib/libjemalloc.so\n")
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        result = launcher.run("--root", "/run/docker/x", verb, "--bundle", "../bundle", 'c"1')
    assert result.returncode == 0, result.stderr
    assert daemon.seen[0].head == {
        "v": 1,
        "op": "create",
        "verb": verb,
        "root": "/run/docker/x",
        "id": 'c"1',
        "bundle": str(launcher.bundle),
        "preload_bytes": 24,
    }
    assert daemon.seen[0].body == text + b"/usr/lib/libjemalloc.so\n"
    assert daemon.seen[0].status == wire.REQUEST


def test_without_options_the_bundle_is_where_it_was_called(launcher: Launcher) -> None:
    """As for runc; and without --root, the root is empty."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.run("create", "c1").returncode == 0
    assert daemon.seen[0].head["bundle"] == str(launcher.bundle)
    assert daemon.seen[0].head["root"] == ""


def test_the_answer_takes_the_place_of_config_json(launcher: Launcher) -> None:
    """As a new file with the old one's mode and owner; the runtime starts after that."""
    launcher.write(config(REQUEST))
    launcher.config.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(launcher.config, 1234, 2345)
    before = launcher.config.stat()
    with ScriptedDaemon(launcher.run_dir, done):
        assert launcher.create().returncode == 0
    after = launcher.config.stat()
    assert launcher.config.read_bytes() == EDITED
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert launcher.leftovers() == []
    assert launcher.recorded() is not None


def test_an_empty_answer_leaves_config_json(launcher: Launcher) -> None:
    """The daemon found no request in it."""
    text = launcher.write(config(REQUEST))
    before = launcher.config.stat().st_ino
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({})):
        assert launcher.create().returncode == 0
    assert launcher.config.read_bytes() == text
    assert launcher.config.stat().st_ino == before


def test_large_specs_pass_whole(launcher: Launcher) -> None:
    """Far more than a socket's buffer, in both directions, with JSON beside the body."""
    answer = json.dumps(config(EDITED="y" * 9_000_000)).encode()
    text = launcher.write(config(REQUEST, more="x" * 9_000_000))
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({"token": "t" * 1000}, answer)) as daemon:
        assert launcher.create().returncode == 0
    assert daemon.seen[0].body == text
    assert launcher.config.read_bytes() == answer


def test_a_symlinked_config_is_replaced_not_followed(launcher: Launcher) -> None:
    """Only the bundle is written to."""
    elsewhere = launcher.bundle.parent / "shared.json"
    elsewhere.write_text(json.dumps(config(REQUEST)))
    launcher.config.symlink_to(elsewhere)
    with ScriptedDaemon(launcher.run_dir, done):
        assert launcher.create().returncode == 0
    assert json.loads(elsewhere.read_text()) == config(REQUEST)
    assert launcher.config.read_bytes() == EDITED


def test_a_file_that_crun_is_told_to_read_is_the_one_that_is_edited(tmp_path: Path) -> None:
    """crun's --config names another file than the bundle's."""
    launcher = Launcher(tmp_path, "gpuportion-runtime-sanitized", runtime="crun")
    text = launcher.write(config())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(config(REQUEST)))
    with ScriptedDaemon(launcher.run_dir, done):
        assert launcher.run("create", "-b", str(launcher.bundle), "-f", "../other.json", "c1").returncode == 0
    assert other.read_bytes() == EDITED
    assert launcher.config.read_bytes() == text
    assert launcher.recorded() is not None


# Refusals


@pytest.mark.parametrize(
    "message",
    ["GP101 container was not started\n      Try less.", 'GP102 "quoted" \t\\ é \u2028', "GP101 x\n\n"],
)
def test_a_refusal_reaches_log_and_stderr(launcher: Launcher, message: str) -> None:
    """After what is in the log already; the container is not started, its spec not touched."""
    text = launcher.write(config(REQUEST))
    launcher.log.write_text('{"level":"info","msg":"before"}\n')
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, message.encode(), wire.REFUSED)):
        result = launcher.create("--log-format", "json")
    assert refused_with(launcher, result) == message.rstrip("\n")
    assert [entry["msg"] for entry in launcher.logged()] == ["before", message.rstrip("\n")]
    assert launcher.config.read_bytes() == text


def test_a_log_of_text_gets_text(launcher: Launcher) -> None:
    """--log-format text is honoured."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no\nnot at all", wire.REFUSED)):
        assert launcher.create("--log-format=text").returncode == 1
    assert launcher.log.read_text().endswith(' level=error msg="GP101 no\\nnot at all"\n')


def test_without_a_log_there_is_stderr(launcher: Launcher) -> None:
    """As podman calls it."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", wire.REFUSED)):
        result = launcher.run("run", "c1")
    assert refused_with(launcher, result) == "GP101 no"


def test_a_log_that_cannot_be_written_hides_nothing(launcher: Launcher) -> None:
    """Nor does a fifo without a reader hold the refusal up."""
    launcher.write(config(REQUEST))
    fifo = launcher.bundle.parent / "fifo"
    os.mkfifo(fifo)
    with ScriptedDaemon(launcher.run_dir, lambda _: wire.Message({}, b"GP101 no", wire.REFUSED)):
        for log in ("/nonexistent/x", str(launcher.bundle), str(fifo), ""):
            result = launcher.run(f"--log={log}", "run", "c1")
            assert (result.returncode, result.stderr) == (1, b"GP101 no\n")


def frame(magic: bytes = b"GPP1", status: int = 0, head: bytes = b"{}", body: bytes = EDITED) -> bytes:
    return struct.pack("<4sIII", magic, status, len(head), len(body)) + head + body


WRONG: dict[str, bytes | wire.Message | None] = {
    "nothing": None,
    "half a header": b"GPP1\0\0",
    "half a frame": frame()[:-1],
    "another protocol": frame(magic=b"HTTP"),
    "a text": b"HTTP/1.1 200 OK\r\n\r\nhello hello",
    "too much JSON": struct.pack("<4sIII", b"GPP1", 0, (1 << 20) + 1, 0),
    "too much body": struct.pack("<4sIII", b"GPP1", 0, 2, (16 << 20) + 1),
    "an unknown status": frame(status=7),
    "a refusal without reason": frame(status=1, body=b""),
    "a body that is no JSON": frame(body=b"GPU 0"),
    "a body that is no object": frame(body=b"[]"),
    "a body that is cut": frame(body=EDITED[:-1]),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_no_container_starts_on_a_wrong_answer(launcher: Launcher, answer: bytes | None) -> None:
    """Whatever is not a whole, good answer means: not without its limit."""
    text = launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, lambda _: answer):
        result = launcher.create()
    assert refused_with(launcher, result).startswith("GP302 this node cannot enforce a memory limit: ")
    assert launcher.config.read_bytes() == text


def gp301(launcher: Launcher, waited: str) -> str:
    return "GP301 " + str(TEMPLATES["GP301"]).format(
        socket=launcher.run_dir / "gpuportiond.sock", waited=waited
    )


@pytest.mark.parametrize("stale", [False, True], ids=["no socket", "a socket of the dead"])
def test_a_stopped_daemon_is_told_of(launcher: Launcher, stale: bool) -> None:
    """GP301, with the seconds that it really waited."""
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(launcher.run_dir / "gpuportiond.sock"))
    result = launcher.create(env={"GPUPORTION_WAIT_S": "1"})
    assert refused_with(launcher, result) == gp301(launcher, "1")
    result = launcher.create(env={"GPUPORTION_WAIT_S": "0"})
    assert refused_with(launcher, result) == gp301(launcher, "0")


def test_a_daemon_that_says_nothing_is_told_of(launcher: Launcher) -> None:
    """It accepted, and then nothing came."""
    launcher.write(config(REQUEST))
    release = threading.Event()

    def hang(_: wire.Message) -> None:
        release.wait(60)

    with ScriptedDaemon(launcher.run_dir, hang):
        result = launcher.create(env={"GPUPORTION_WAIT_S": "1"})
        release.set()
    assert refused_with(launcher, result) == gp301(launcher, "1")


def test_a_daemon_that_is_being_restarted_is_waited_for(launcher: Launcher) -> None:
    """The socket appears a moment after the container was asked for."""
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    process = subprocess.Popen([launcher.program, "create", "c1"], env=launcher.env, cwd=launcher.bundle)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    with ScriptedDaemon(launcher.run_dir, done):
        assert process.wait(timeout=60) == 0
    assert launcher.config.read_bytes() == EDITED


def test_an_early_refusal_is_read_though_the_rest_was_not_wanted(launcher: Launcher) -> None:
    """A daemon that does not serve this user says so and closes, before it has read a large request."""
    launcher.write(config(REQUEST, more="x" * 4_000_000))
    launcher.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(launcher.run_dir / "gpuportiond.sock"))
        listener.listen()
        process = subprocess.Popen(
            [launcher.program, "create", "c1"], env=launcher.env, cwd=launcher.bundle, stderr=subprocess.PIPE
        )
        connection, _ = listener.accept()
        with connection:
            connection.sendall(frame(status=1, body=b"GP303 not you"))
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, b"GP303 not you\n")


STRANGER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setgid(65534), os.setuid(65534)
listener.listen()  # whoever does this is the peer
print("listening", flush=True)
sys.stdin.read()
"""


def test_a_stranger_on_the_socket_is_not_believed(launcher: Launcher) -> None:
    """What answers decides what root starts: it must be root, or who asks."""
    if os.geteuid() != 0:
        pytest.skip("needs root: becomes another user")
    launcher.write(config(REQUEST))
    launcher.run_dir.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, str(launcher.run_dir / "gpuportiond.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"listening\n"
        result = launcher.create()
        stranger.communicate()
    assert "neither root nor you" in refused_with(launcher, result)


def test_a_run_directory_with_too_long_a_name_is_told_of(launcher: Launcher) -> None:
    """An address of a socket has 107 bytes."""
    launcher.write(config(REQUEST))
    result = launcher.create(env={"GPUPORTION_RUN_DIR": "/run/" + "x" * 120})
    assert "107 bytes" in refused_with(launcher, result)


# The bundle


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(17 << 20)


@pytest.mark.parametrize(
    "make,why", [(Path.mkdir, "regular"), (make_fifo, "regular"), (make_large, "larger than 16 MB")]
)
def test_a_config_that_cannot_be_read_is_refused(launcher: Launcher, make: Any, why: str) -> None:
    """It may hold a request; the runtime might read it all the same."""
    make(launcher.config)
    assert why in refused_with(launcher, launcher.create())


def test_a_missing_config_is_the_runtimes_to_tell(launcher: Launcher) -> None:
    """Its message is better, and nothing can start."""
    assert launcher.create().returncode == 0
    assert launcher.recorded() is not None


def test_an_unknown_option_and_no_config_is_refused(launcher: Launcher) -> None:
    """The bundle may be elsewhere than we think: no newer runtime's option is a way around the limit."""
    result = launcher.run("--log", str(launcher.log), "create", "--newer", "c1", "-x", cwd="/")
    assert "does not know" in refused_with(launcher, result)


@pytest.mark.parametrize(
    "words", [["create"], ["create", "--bundle"], ["create", "--help"], ["run", "-h", "c1"]]
)
def test_a_line_without_a_container_is_the_runtimes(launcher: Launcher, words: list[str]) -> None:
    """It prints its own help."""
    launcher.write(config(REQUEST))
    assert launcher.run(*words).returncode == 0
    assert launcher.recorded() is not None


def test_a_bundle_that_cannot_be_written_starts_nothing(launcher: Launcher) -> None:
    """The container would run without the edit. (An immutable folder: root can write to all others.)"""
    text = launcher.write(config(REQUEST))
    if subprocess.run(["chattr", "+i", launcher.bundle], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs chattr and a filesystem that has immutable folders")
    try:
        with ScriptedDaemon(launcher.run_dir, done):
            result = launcher.create()
    finally:
        subprocess.run(["chattr", "-i", launcher.bundle], check=True)
    assert "cannot be replaced" in refused_with(launcher, result)
    assert launcher.config.read_bytes() == text


def test_a_file_left_by_a_killed_launcher_is_in_nobodys_way(launcher: Launcher) -> None:
    """Process ids come again; the name is taken over, and a link there is not followed."""
    launcher.write(config(REQUEST))
    target = launcher.bundle.parent / "precious"
    target.write_text("precious")

    def leave_a_link() -> None:
        (launcher.bundle / f".gpuportion.{os.getpid()}").symlink_to(target)

    with ScriptedDaemon(launcher.run_dir, done):
        assert launcher.run("create", "c1", preexec_fn=leave_a_link).returncode == 0
    assert target.read_text() == "precious"
    assert launcher.config.read_bytes() == EDITED
    assert launcher.leftovers() == []


# The image's own /etc/ld.so.preload


def plain(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").write_text("/lib/x.so\n")


def absolute_link(rootfs: Path) -> None:
    (rootfs / "opt").mkdir()
    (rootfs / "opt/p").write_text("/lib/x.so\n")
    (rootfs / "etc/ld.so.preload").symlink_to("/opt/p")


def escaping_link(rootfs: Path) -> None:
    (rootfs.parent / "secret").write_text("/secret\n")
    (rootfs / "etc/ld.so.preload").symlink_to("../../secret")


def host_link(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("/etc/passwd")


def etc_link(rootfs: Path) -> None:
    (rootfs / "etc").rmdir()
    (rootfs / "etc").symlink_to("/proc/self/root/etc")


def magic_link(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("/proc/self/fd/0")


def device(rootfs: Path) -> None:
    os.mknod(rootfs / "etc/ld.so.preload", 0o020666, os.makedev(1, 5))  # /dev/zero


def fifo(rootfs: Path) -> None:
    os.mkfifo(rootfs / "etc/ld.so.preload")


def loop(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").symlink_to("ld.so.preload")


def folder(rootfs: Path) -> None:
    (rootfs / "etc/ld.so.preload").mkdir()


def nothing(rootfs: Path) -> None:
    pass


def no_root(rootfs: Path) -> None:
    (rootfs / "etc").rmdir()
    rootfs.rmdir()


@pytest.mark.parametrize(
    "make,read",
    [(plain, b"/lib/x.so\n"), (absolute_link, b"/lib/x.so\n")]
    + [
        (make, b"")
        for make in (
            escaping_link, host_link, etc_link, magic_link, device, fifo, loop, folder, nothing, no_root
        )
    ],
)  # fmt: skip
def test_the_images_preload_is_read_within_the_image(launcher: Launcher, make: Any, read: bytes) -> None:
    """Links are followed inside it; nothing of the host is read, no device opened, no fifo waited for."""
    if make is device and os.geteuid() != 0:
        pytest.skip("needs root: makes a device node")
    text = launcher.write(config(REQUEST))
    make(launcher.rootfs)
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.create().returncode == 0
    assert daemon.seen[0].body == text + read
    assert daemon.seen[0].head["preload_bytes"] == len(read)


def test_an_absolute_root_is_found(launcher: Launcher) -> None:
    """docker names it absolutely; escapes in the path are the path's."""
    elsewhere = launcher.bundle.parent / "gráph root"
    (elsewhere / "etc").mkdir(parents=True)
    plain(elsewhere)
    launcher.write(json.dumps(config(REQUEST, root=str(elsewhere))).replace("/", "\\/"))
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.create().returncode == 0
    assert daemon.seen[0].body.endswith(b"/lib/x.so\n")


def test_a_preload_that_is_too_large_is_refused(launcher: Launcher) -> None:
    """Cut short, it would lose libraries that the image relies on."""
    launcher.write(config(REQUEST))
    (launcher.rootfs / "etc/ld.so.preload").write_bytes(b"#" * (64 << 10))
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.create().returncode == 0
        assert daemon.seen[0].head["preload_bytes"] == 64 << 10
    (launcher.rootfs / "etc/ld.so.preload").write_bytes(b"#" * ((64 << 10) + 1))
    launcher.write(config(REQUEST))
    (launcher.bundle.parent / "recorded.json").unlink()
    assert "larger than 64 KiB" in refused_with(launcher, launcher.create())


# delete


def test_a_delete_is_noted(launcher: Launcher) -> None:
    """The daemon hears of it, and the runtime does not wait for its answer."""
    hang = threading.Event()

    def never(_: wire.Message) -> None:
        hang.wait(60)

    with ScriptedDaemon(launcher.run_dir, never) as daemon:
        assert launcher.run("--root", "/r", "delete", "--force", "c1").returncode == 0
        assert launcher.recorded() is not None
        seen = daemon.wait_for(1)
        hang.set()
    assert [message.head for message in seen] == [{"v": 1, "op": "deleted", "root": "/r", "id": "c1"}]


def test_a_delete_needs_no_daemon(launcher: Launcher) -> None:
    """None there, a dead one's socket, or one that accepts nobody: the runtime starts."""
    assert launcher.run("delete", "c1").returncode == 0
    launcher.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(launcher.run_dir / "gpuportiond.sock"))
        assert launcher.run("delete", "c1").returncode == 0
        busy.listen(0)
        for _ in range(4):
            assert launcher.run("delete", "c1").returncode == 0
    assert launcher.recorded() is not None


def test_a_delete_without_a_name_is_not_noted(launcher: Launcher) -> None:
    """There is nothing to say."""
    with ScriptedDaemon(launcher.run_dir, done) as daemon:
        assert launcher.run("delete", "--force").returncode == 0
        assert daemon.seen == []
