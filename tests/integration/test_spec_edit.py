"""Real low-level runtimes start a container from an edited spec; what its processes see is what was granted.

The driver is a stand-in of plain files, our libraries are empty shared objects, hooks write down what they
got: neither a GPU nor the daemon is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.gpu_specs import FILES, LIB, document, injection

from gpuportion.hooks import stages
from gpuportion.shim import cdi
from gpuportion.shim.preload import preload_text
from gpuportion.shim.spec import Injection, edit

pytestmark = pytest.mark.containers

PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
COMMANDS: Final = ("sh", "cat", "stat", "mv", "rm", "grep", "ls")
RECORD: Final = '#!/bin/sh\n{{ echo "$*"; pwd; env; }} > {folder}/$1.$$.hook\n'
TOKEN: Final = "00112233445566778899aabbccddeeff"
CONFIG: Final = Path(__file__).parents[1] / "unit/docker-config.json"


@dataclass
class Host:
    """A folder with a root filesystem and stand-ins for everything that an Injection names; a runtime."""

    folder: Path
    runtime: tuple[str, ...]

    def run(self, script: str, *mounts: tuple[str, Path], **root: Any) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a container of an edited spec; `mounts` are a user's own (-v), target first."""
        spec = self.spec(script)
        spec["root"].update(root)
        spec["mounts"] += [_bind(target, source) for target, source in mounts]
        bundle = self.folder / "bundle"
        (bundle / "config.json").write_text(json.dumps(edit(spec, self.injection())))
        name = f"gpuportion-test-{os.getpid()}"
        return subprocess.run(
            [
                *self.runtime,
                "--root",
                f"{self.folder}/state",
                "run",
                "--bundle",
                str(bundle),
                name,
            ],
            env={"PATH": PATH, "OF_THE_ENGINE": "secret"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def spec(self, script: str) -> dict[str, Any]:
        """docker's own spec, less what only docker has on its host."""
        spec: dict[str, Any] = json.loads(CONFIG.read_text())
        spec["process"]["args"] = ["/bin/sh", "-c", script]
        spec["process"]["env"] += ["LD_PRELOAD=", "OF_THE_CONTAINER=1"]
        spec["root"] = {"path": str(self.folder / "rootfs")}
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "bind"]
        spec["hooks"] = {}
        spec["linux"]["cgroupsPath"] = f"/gpuportion-test-{os.getpid()}"
        return spec

    def injection(self) -> Injection:
        at = self.folder
        made = document()
        for mount in made["containerEdits"]["mounts"]:
            mount["hostPath"] = f"{at}/driver/{Path(mount['hostPath']).name}"
        for hook in made["containerEdits"]["hooks"]:
            hook["path"] = f"{at}/hook"
        edits = cdi.edits([cdi.parse(made, "x")], cdi.GPU_KIND, ["0"])
        return injection(
            edits=edits,
            device_numbers={node.host_path: ("c", 1, 3) for node in edits.device_nodes},
            library=f"{at}/libcap_mem.so",
            nvml_library=f"{at}/libcap_nvml.so",
            alias=f"{at}/libcap_alias.so",
            policy=f"{at}/policy",
            ledger=f"{at}/ledger",
            preload=f"{at}/ld.so.preload",
            hooks=stages.entries(f"{at}/hook", socket="/s.sock", token=TOKEN, container="c1"),
        )

    def hook(self, stage: str) -> list[str]:
        """What the hook of that first argument wrote down: arguments, folder, environment. It ran once."""
        (record,) = self.folder.glob(f"{stage}.*.hook")
        return record.read_text().splitlines()


def _bind(target: str, source: Path) -> dict[str, Any]:
    return {"destination": target, "source": str(source), "type": "bind", "options": ["rbind", "rw"]}


def _copy_commands(rootfs: Path) -> None:
    """The commands that the scripts use, with the libraries that these need, at the same paths."""
    files = {str(shutil.which(command, path=PATH)) for command in COMMANDS}
    for command in sorted(files):
        told = subprocess.run(["ldd", command], capture_output=True, text=True, check=True).stdout
        files |= {word for word in told.split() if word.startswith("/")}
    for file in files:
        folder, name = os.path.split(file)
        target = rootfs / os.path.realpath(folder).lstrip("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for name in ("bin", "lib", "lib64"):  # merged, as on every current distribution
        (rootfs / name).symlink_to(f"usr/{name}")


def _library(path: Path, soname: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs cc")
    subprocess.run([compiler, "-shared", f"-Wl,-soname,{soname}", "-o", path, "-xc", "/dev/null"], check=True)


def _without_hybrid_cgroups(runtime: str) -> tuple[str, ...]:
    """crun refuses a version 1 hierarchy that has a version 2 one beside it; there it gets to see the first."""
    if runtime != "crun" or not os.path.exists("/sys/fs/cgroup/unified/cgroup.procs"):
        return ()
    return ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$0" "$@"')


@pytest.fixture(params=["runc", "crun"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root: starts containers")
    runtime = shutil.which(request.param, path=PATH)
    if runtime is None:
        pytest.skip(f"needs {request.param}")
    for name in ("driver", "rootfs", "bundle", "state"):
        (tmp_path / name).mkdir()
    _copy_commands(tmp_path / "rootfs")
    for file in FILES:
        (tmp_path / "driver" / Path(file).name).write_text(f"real {Path(file).name}\n")
    _library(tmp_path / "libcap_mem.so", "libcuda.so.1")
    _library(tmp_path / "libcap_nvml.so", "libnvidia-ml.so.1")
    _library(tmp_path / "libcap_alias.so", "libcuda.so")
    (tmp_path / "policy").write_text("policy\n")
    (tmp_path / "ledger").write_text("ledger\n")
    (tmp_path / "ledger").chmod(0o666)
    (tmp_path / "ld.so.preload").write_bytes(preload_text(b""))
    (tmp_path / "hook").write_text(RECORD.format(folder=tmp_path))
    (tmp_path / "hook").chmod(0o755)
    yield Host(tmp_path, (*_without_hybrid_cgroups(request.param), runtime))


def test_every_name_of_the_driver_is_one_inode_of_ours(host: Host) -> None:
    """Or two copies of the library would be loaded; the real one lies aside."""
    names = f"/.gpuportion/libcuda.so.1 {LIB}/libcuda.so.550.54.15"
    done = host.run(f"stat -c %d:%i {names}; cat /.gpuportion/driver/libcuda.so.1 /.gpuportion/policy")
    first, second, driver, policy = done.stdout.splitlines()
    ours = os.stat(host.folder / "libcap_mem.so")
    assert first == second == f"{ours.st_dev}:{ours.st_ino}", done.stderr
    assert (driver, policy) == ("real libcuda.so.550.54.15", "policy")


def test_our_libraries_are_loaded_with_and_without_the_variable(host: Host) -> None:
    """LD_PRELOAD for most, /etc/ld.so.preload for cleared environments; the loader complains of nothing."""
    done = host.run('echo "$LD_PRELOAD"; cat /proc/self/maps; echo; unset LD_PRELOAD; cat /proc/self/maps')
    names = ("libcuda.so.1", "libnvidia-ml.so.1", "libcuda.so")
    assert done.stdout.startswith(":".join(f"/.gpuportion/{name}" for name in names) + "\n")
    for maps in done.stdout.split("\n\n"):
        for name in names:
            inodes = {line.split()[4] for line in maps.splitlines() if line.endswith(f" /.gpuportion/{name}")}
            assert len(inodes) == 1, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /.gpuportion/policy",
        "echo 1 > /.gpuportion/libcuda.so.1",
        "echo 1 > /.gpuportion/new",
        "rm -f /.gpuportion/policy",
        "mv /.gpuportion /.aside",
        "mv /.gpuportion/policy /.gpuportion/aside",
        "echo > /etc/ld.so.preload",
        "rm -f /etc/ld.so.preload",
        "mv /etc/ld.so.preload /etc/aside",
        f"rm -f {LIB}/libcuda.so.550.54.15",
    ],
)
def test_root_in_the_container_cannot_change_its_limit(host: Host, attempt: str) -> None:
    """With docker's default capabilities: no write, no removal, no moving away."""
    done = host.run(f"if {attempt}; then echo done; fi; cat /.gpuportion/policy /etc/ld.so.preload")
    assert done.stdout == "policy\n" + preload_text(b"").decode(), done.stderr
    assert done.stderr != ""


def test_only_the_ledger_can_be_written(host: Host) -> None:
    """The container's processes keep their account in it."""
    assert host.run("echo mine > /.gpuportion/ledger && cat /.gpuportion/ledger").stdout == "mine\n"
    assert (host.folder / "ledger").read_text() == "mine\n"


@pytest.mark.parametrize("target", ["/.gpuportion", "/.gpuportion/policy", "/etc", LIB])
def test_a_users_mount_cannot_cover_ours(host: Host, target: str) -> None:
    """Neither exactly there nor over a folder above; and nothing of ours lands in the user's folder."""
    mine = host.folder / "mine"
    mine.mkdir()
    source = mine
    if target == "/.gpuportion/policy":
        source = mine / "policy"
        source.write_text("unlimited\n")
    if target == LIB:
        shutil.copytree(host.folder / f"rootfs{LIB}", mine, dirs_exist_ok=True)
    done = host.run("cat /.gpuportion/policy /etc/ld.so.preload", (target, source))
    assert done.stdout == "policy\n" + preload_text(b"").decode(), done.stderr
    assert not list(mine.glob("libcuda.so.1")) and not (mine / "driver").exists()


@pytest.mark.parametrize("readonly", [False, True])
def test_the_image_keeps_no_trace_but_mount_points(host: Host, readonly: bool) -> None:
    """What `docker commit` would see: an empty folder, and empty files where files were mounted."""
    assert host.run("cat /.gpuportion/policy", readonly=readonly).stdout == "policy\n"
    assert os.listdir(host.folder / "rootfs/.gpuportion") == []
    assert (host.folder / "rootfs/etc/ld.so.preload").read_bytes() == b""


def test_the_device_can_be_opened_by_its_number(host: Host) -> None:
    """The node is made, and the cgroup lets it in."""
    done = host.run("stat -c '%F %t:%T %a' /dev/nvidia0; echo x > /dev/nvidia0 && echo opened")
    assert done.stdout == "character special file 1:3 666\nopened\n", done.stderr


def test_hooks_get_their_arguments_and_no_inherited_environment(host: Host) -> None:
    """Neither the engine's nor the container's: with an image's LD_PRELOAD that would be root on the host."""
    assert host.run("true").returncode == 0
    expected = {
        "confirm": f"confirm --socket /s.sock --token {TOKEN} --id c1",
        "update-ldcache": f"update-ldcache --folder {LIB}",
        "create-symlinks": f"create-symlinks --link libcuda.so.1::{LIB}/libcuda.so",
    }
    for stage, arguments in expected.items():
        record = host.hook(stage)
        assert record[0] == arguments
        assert not any(line.startswith(("OF_THE_", "LD_PRELOAD", "GPU_")) for line in record)


def test_a_container_that_ends_leaves_nothing_mounted(host: Host) -> None:
    """Mounts are private to it."""
    host.run("true")
    assert str(host.folder) not in Path("/proc/self/mounts").read_text()
