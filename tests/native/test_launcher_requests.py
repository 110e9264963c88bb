"""Which containers gpuportion-runtime asks the daemon about, what it says, and what it does with the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpuportion import wire
from gpuportion.shim import request
from tests.support.launcher import EDITED, REQUEST, Launcher, config, edit_it
from tests.support.scripted_daemon import ScriptedDaemon


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
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
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
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
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
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
        result = launcher.run("--root", "/run/docker/x", verb, "--bundle", "../bundle", 'c"1')
    assert result.returncode == 0, result.stderr
    assert daemon.seen[0].head == {
        "v": 1,
        "op": "create",
        "verb": verb,
        "root": "/run/docker/x",
        "id": 'c"1',
        "bundle": str(launcher.bundle),
        "last": True,
        "runtime": str(launcher.runtime),
        "preload_bytes": 24,
        "image_drivers": [],
        "image_mounts": [],
    }
    assert daemon.seen[0].body == text + b"/usr/lib/libjemalloc.so\n"
    assert daemon.seen[0].status == wire.REQUEST


def test_without_options_the_bundle_is_where_it_was_called(launcher: Launcher) -> None:
    """As for runc; and without --root, the root is empty."""
    launcher.write(config(REQUEST))
    with ScriptedDaemon(launcher.run_dir, edit_it) as daemon:
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
    with ScriptedDaemon(launcher.run_dir, edit_it):
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
    with ScriptedDaemon(launcher.run_dir, edit_it):
        assert launcher.create().returncode == 0
    assert json.loads(elsewhere.read_text()) == config(REQUEST)
    assert launcher.config.read_bytes() == EDITED


def test_a_file_that_crun_is_told_to_read_is_the_one_that_is_edited(tmp_path: Path) -> None:
    """crun's --config names another file than the bundle's."""
    launcher = Launcher(tmp_path, "gpuportion-runtime-sanitized", runtime="crun")
    text = launcher.write(config())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(config(REQUEST)))
    with ScriptedDaemon(launcher.run_dir, edit_it):
        assert launcher.run("create", "-b", str(launcher.bundle), "-f", "../other.json", "c1").returncode == 0
    assert other.read_bytes() == EDITED
    assert launcher.config.read_bytes() == text
    assert launcher.recorded() is not None
