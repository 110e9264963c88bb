"""The administrator's rules in a running daemon: at its start, at SIGHUP, and for each who asks."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from tests.support.daemon import GB, MIB, Daemon, Sleeper, unmount_below
from tests.support.launcher import Launcher, config

from gpuportion.errors import RefusedError

USER = "gpuportion.io/user"


class Ruled(Daemon):
    """A daemon with a configuration of its own, which tests write."""

    def __init__(self, tmp_path: Path, rules: str, sim: str = "a100-80gb:1") -> None:
        self.config = tmp_path / "config.yaml"
        self.config.write_text(rules)
        super().__init__(tmp_path, sim=sim, options=["--config", str(self.config)])

    def __enter__(self) -> Ruled:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reservations end with their creator, which is this test: nobody waits for that."""
        self.stop()
        unmount_below(self.run_dir)

    def reload(self, rules: str, says: str) -> None:
        """Write other rules, and wait for what the log says of them."""
        self.config.write_text(rules)
        before = self.log.read_text().count(says)
        os.kill(self.pid, signal.SIGHUP)
        self.until(lambda: self.log.read_text().count(says) > before)

    def refusal(self, *env: str, id: str = "c1", **annotations: str) -> str:
        with pytest.raises(RefusedError) as refused:
            self.create(*env, id=id, annotations=annotations)
        return refused.value.text


@pytest.fixture
def ruled(tmp_path: Path) -> Iterator[Ruled]:
    with Ruled(tmp_path, "container: {max-memory: 8G}\n") as running:
        yield running


READ_AGAIN = "configuration read again"


def test_a_rule_refuses_with_its_numbers_and_its_key(ruled: Ruled) -> None:
    """And the same request is granted when the rule has gone, without a restart."""
    text = ruled.refusal("GPU_MEMORY_LIMIT=9G")
    assert text.startswith("GP110 container ") and "container.max-memory" in text
    assert "9.00 GB (8583 MiB)" in text and "8.00 GB (7629 MiB)" in text
    ruled.reload("container: {max-memory: 10G}\n", READ_AGAIN)
    assert ruled.create("GPU_MEMORY_LIMIT=9G").token


def test_a_mistake_at_reload_is_said_and_changes_nothing(ruled: Ruled) -> None:
    """Line and key are in the log and in `config`; the rules of before hold."""
    ruled.reload("container:\n  max-memory: 4000\n", "the running configuration stays as it is")
    assert "line 2, key container.max-memory" in ruled.log.read_text()
    answer = ruled.ask("config").head
    assert "line 2, key container.max-memory" in answer["trouble"]
    assert "max-memory: 7629Mi" in answer["text"]
    assert ruled.refusal("GPU_MEMORY_LIMIT=9G").startswith("GP110")
    ruled.reload("", READ_AGAIN)
    assert ruled.ask("config").head["trouble"] == ""
    assert ruled.create("GPU_MEMORY_LIMIT=9G").token


def test_a_default_that_cannot_be_marked_is_not_taken(ruled: Ruled) -> None:
    """The launcher would not ask, so nobody would get it; the daemon lives on with the rules of before."""
    (ruled.run_dir / "default-grant").mkdir()
    ruled.reload("default: {memory-limit: 2G}\n", "the running configuration stays as it is")
    assert "default-grant" in ruled.ask("config").head["trouble"]
    assert ruled.refusal("GPU_MEMORY_LIMIT=9G").startswith("GP110")


@pytest.mark.parametrize(
    ("rules", "mode", "says"),
    [
        (
            "placement: fullest\n",
            0o600,
            "line 1, key placement: it is 'fullest'. Write binpack, spread or exclusive.",
        ),
        ("placement: spread\n", 0o666, "others than root can write it"),
    ],
)
def test_a_daemon_with_bad_rules_does_not_start(tmp_path: Path, rules: str, mode: int, says: str) -> None:
    """One sentence on stderr, status 1; a limit that can't be read is never no limit."""
    config = tmp_path / "config.yaml"
    config.write_text(rules)
    config.chmod(mode)
    command = [sys.executable, "-m", "gpuportion.allocator", "--run-dir", str(tmp_path / "run")]
    options = ["--state-dir", str(tmp_path / "lib"), "--config", str(config)]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_default_is_granted_to_those_who_ask_for_nothing(ruled: Ruled) -> None:
    """The launcher's flag comes and goes with the rule; a pause container gets nothing."""
    flag = ruled.run_dir / "default-grant"
    assert not flag.exists()
    assert ruled.create(id="before").spec is None
    ruled.reload("default: {memory-limit: 2G}\n", READ_AGAIN)
    status = flag.lstat()
    assert stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    assert ruled.create(id="after").token
    assert [row["gpus"][0]["limit"] for row in ruled.ps()] == [2 * GB // MIB * MIB]
    pause = {"io.kubernetes.cri.container-type": "sandbox"}
    assert ruled.create(id="pause", annotations=pause).spec is None
    ruled.reload("", READ_AGAIN)
    assert not flag.exists() and ruled.create(id="later").spec is None


def test_users_have_totals_of_their_own(tmp_path: Path) -> None:
    """By the annotation, where the administrator trusts it; those who name nobody are root's."""
    rules = "user: {max-memory: 4G}\nusers: {ann: {max-memory: 6G}}\nuser-annotation: trust\n"
    with Ruled(tmp_path, rules) as daemon:
        daemon.create("GPU_MEMORY_LIMIT=3G", id="b1", annotations={USER: "ben"})
        text = daemon.refusal("GPU_MEMORY_LIMIT=3G", id="b2", **{USER: "ben"})
        assert "user ben has 3.00 GB (2861 MiB) of the 4.00 GB (3814 MiB)" in text
        assert daemon.create("GPU_MEMORY_LIMIT=6G", id="a1", annotations={USER: "ann"}).token
        assert daemon.create("GPU_MEMORY_LIMIT=4G", id="r1").token
        assert "root, who has every container that names no user" in daemon.refusal(
            "GPU_MEMORY_LIMIT=1G", id="r2"
        )
        assert {row["container"]: row["user"] for row in daemon.ps()} == {"b1": "ben", "a1": "ann", "r1": 0}


def test_a_total_is_free_again_when_a_container_ended(tmp_path: Path) -> None:
    """Also where nobody told the daemon yet."""
    with Ruled(tmp_path, "user: {max-containers: 1}\n") as daemon:
        granted = daemon.create("GPU_MEMORY_LIMIT=1G", id="one")
        with Sleeper() as container:
            daemon.confirm(granted.token, container)
            assert "user.max-containers" in daemon.refusal("GPU_MEMORY_LIMIT=1G", id="two")
        assert daemon.create("GPU_MEMORY_LIMIT=1G", id="two").token


def test_a_way_of_asking_can_be_closed(tmp_path: Path) -> None:
    """What an image's environment asks for is refused, not passed over."""
    with Ruled(tmp_path, "requests-from: annotations\n") as daemon:
        assert "requests-from" in daemon.refusal("GPU_MEMORY_LIMIT=1G")
        asked = {"gpuportion.io/memory-limit": "1G"}
        assert daemon.create("GPU_MEMORY_LIMIT=2G", annotations=asked).token


def test_the_margin_and_the_ratio_follow_the_file(ruled: Ruled) -> None:
    """`free` of a node is what can be granted under the rules as they are now."""
    (gpu,) = ruled.gpus()
    ruled.reload("margin: 1064Mi\n", READ_AGAIN)
    assert ruled.gpus()[0]["free"] == gpu["free"] - 1000 * MIB
    ruled.reload("overcommit: 1.5\n", READ_AGAIN)
    for number in range(3):
        assert ruled.create("GPU_FRACTION=0.5", id=f"half-{number}").token
    assert "GP101" in ruled.refusal("GPU_FRACTION=0.5", id="half-3")


def test_containers_spread_where_they_are_told_to(tmp_path: Path) -> None:
    """One on each GPU before any has two; by `exclusive` never two."""
    with Ruled(tmp_path, "placement: spread\n", sim="a10-24gb:2") as daemon:
        for number in range(2):
            daemon.create("GPU_MEMORY_LIMIT=1G", id=f"s{number}")
        assert sorted(row["gpus"][0]["index"] for row in daemon.ps()) == [0, 1]
        daemon.reload("placement: exclusive\n", READ_AGAIN)
        assert daemon.refusal("GPU_MEMORY_LIMIT=1G", id="s2").startswith("GP101")


def test_only_allowed_runtimes_start_a_container(tmp_path: Path) -> None:
    """By name or path; a launcher that doesn't tell is not believed."""
    with Ruled(tmp_path, "runtimes: [runc, /opt/bin/crun]\n") as daemon:
        assert "its low-level runtime is not known" in daemon.refusal("GPU_MEMORY_LIMIT=1G")


def test_the_launcher_asks_for_those_who_ask_for_nothing(tmp_path: Path) -> None:
    """Launcher and daemon together: nothing is touched without a default, and a portion comes with one."""
    with Ruled(tmp_path, "runtimes: [runc]\n") as daemon:
        launcher = Launcher(tmp_path, "gpuportion-runtime")
        before = launcher.write(config())
        assert launcher.create().returncode == 0
        assert launcher.config.read_bytes() == before
        daemon.reload("default: {memory-limit: 2G}\nruntimes: [runc]\n", READ_AGAIN)
        done = launcher.create()
        assert done.returncode == 0, done.stderr
        assert b"/.gpuportion/policy" in launcher.config.read_bytes()
        assert "c1: 1907 MiB of GPU 0" in daemon.log.read_text()


def test_the_launcher_is_told_that_its_runtime_is_not_allowed(tmp_path: Path) -> None:
    """The low-level runtime isn't started then."""
    with Ruled(tmp_path, "runtimes: [crun]\n"):
        launcher = Launcher(tmp_path, "gpuportion-runtime")
        launcher.write(config("GPU_MEMORY_LIMIT=1G"))
        done = launcher.create()
        assert done.returncode == 1 and launcher.recorded() is None
        assert f"its low-level runtime is {launcher.runtime}; allowed are crun" in done.stderr.decode()
