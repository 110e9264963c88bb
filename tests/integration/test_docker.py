"""One capped container, end to end: real dockerd, real runc, unmodified CUDA clients, a simulated GPU."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.node import MB, Node

pytestmark = pytest.mark.containers


def test_a_container_uses_its_grant_and_no_more(node: Node) -> None:
    """600 MB of a grant of 1 GB are given, 600 MB more are refused, and the process lives and goes on."""
    with node.session("1G") as client:
        assert client.opened == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        assert client.ask("free", 0)["result"] == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert "GP201" in client.end()


def test_the_grant_is_the_size_of_the_gpu_inside(node: Node) -> None:
    """CUDA and NVML tell the same: total is the grant, and only the container's own use is used."""
    with node.session("1G") as client:
        client.alloc(100 * MB)
        cuda, nvml = client.ask("info"), client.ask("nvml")
        grant = 10**9 // (1 << 20) * (1 << 20)
        assert cuda["total"] == cuda["device_total"] == nvml["total"] == grant
        assert cuda["free"] == grant - nvml["used"]
        assert list(nvml["processes"]) == [str(client.pid)]
        assert 100 * MB <= nvml["used"] < grant


@pytest.mark.parametrize(
    "way",
    [
        pytest.param([], id="exec"),
        pytest.param(["--user", "1234:1234"], id="non-root"),
    ],
)
@pytest.mark.parametrize("wrapper", [[], ["env", "-i"]], ids=["plain", "env-i"])
def test_docker_exec_is_capped_too(node: Node, way: list[str], wrapper: list[str]) -> None:
    """A process that joins later, with no environment of ours or as another user, shares the grant."""
    with node.container("1G") as name, node.exec_session(name, *way, wrapper=wrapper) as client:
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"


def test_two_processes_share_one_grant_and_the_killed_one_gives_back(node: Node) -> None:
    """What one process of a container holds the other cannot have, until it is dead, however it died."""
    with node.container("1G") as name, node.exec_session(name) as one, node.exec_session(name) as two:
        assert one.alloc(350 * MB) == "CUDA_SUCCESS"
        assert two.alloc(350 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        node.docker("exec", name, "kill", "-9", str(one.pid))
        one.process.wait(timeout=30)
        assert two.alloc(350 * MB) == "CUDA_SUCCESS"


def test_neighbours_are_invisible_and_cannot_take_each_others_share(node: Node) -> None:
    """Two containers on one GPU: each has its whole grant whatever the other does."""
    with node.session("1G") as one, node.session("1G") as two:
        assert one.alloc(600 * MB) == two.alloc(600 * MB) == "CUDA_SUCCESS"
        assert one.alloc(600 * MB) == two.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        seen = two.ask("nvml")
        assert list(seen["processes"]) == [str(two.pid)]
        assert sum(seen["processes"].values()) == seen["used"] < 1000 * MB, "the other's 600 MB are in it"


def test_without_a_request_nothing_is_touched_and_no_daemon_is_needed(node: Node, tmp_path: Path) -> None:
    """config.json goes to runc byte for byte, also while the daemon is down."""
    saved = tmp_path / "sums"
    node.spy_on_config(saved)
    with node.daemon_down():
        done = node.docker_run(runtime="gpuportion-spied", command=["true"])
    assert done.returncode == 0, done.stderr
    before, after = saved.read_text().split()
    assert before == after


def test_a_request_while_the_daemon_is_down_is_refused_with_how_to_start_it(node: Node) -> None:
    """Docker's terminal shows GP301; the container does not start."""
    with node.daemon_down():
        done = node.docker_run("1G", command=["true"])
    assert done.returncode == 125
    assert "GP301" in done.stderr and "systemctl start gpuportiond" in done.stderr


def test_an_amount_without_a_unit_is_refused(node: Node) -> None:
    """Never taken for bytes, MiB or no limit."""
    done = node.docker_run("4000", command=["true"])
    assert done.returncode == 125
    assert "GP102 GPU_MEMORY_LIMIT=4000 has no unit. Write 4000M, 4G or 4Gi." in done.stderr


def test_a_full_gpu_refuses_with_who_holds_it(node: Node) -> None:
    """GP101 names the asked amount, what is free and the holders."""
    with node.container("70G", name="the-big-one") as name:
        done = node.docker_run("70G", command=["true"])
        short = node.container_id(name)[:12]
    assert done.returncode == 125
    assert "GP101" in done.stderr and "70.00 GB" in done.stderr
    assert short in done.stderr or name in done.stderr


def test_rm_and_restart_leave_nothing_behind(node: Node) -> None:
    """`docker restart` keeps one grant, `docker rm -f` none; no page, mount or row stays."""
    with node.container("1G") as name:
        for _ in range(3):
            node.docker("restart", "-t", "0", name)
            node.until(lambda: len(node.ps()) == 1)
        with node.exec_session(name) as client:
            assert client.alloc(600 * MB) == "CUDA_SUCCESS"
            assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
    node.until(lambda: not node.ps())
    node.until(lambda: not list((node.run_dir / "grants").iterdir()))
    assert str(node.run_dir / "grants") not in Path("/proc/mounts").read_text()


def test_of_twenty_at_once_as_many_start_as_there_is_room_for(node: Node) -> None:
    """Two containers that start together never both take the last place."""
    size = node.free() // 10 // (1 << 20)
    names = [f"race-{number}" for number in range(20)]

    def start(name: str) -> subprocess.CompletedProcess[str]:
        return node.docker_run(f"{size}Mi", name=name, detach=True, command=["sleep", "600"])

    try:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            done = list(pool.map(start, names))
        assert sum(one.returncode == 0 for one in done) == 10, [one.stderr for one in done]
        assert all("GP101" in one.stderr for one in done if one.returncode != 0)
        assert len(node.ps()) == 10
    finally:
        node.docker("rm", "-f", *names, check=False)
    node.until(lambda: not node.ps())


@pytest.mark.parametrize(
    "abuse",
    [
        pytest.param("open('/.gpuportion/ledger','r+b').truncate(0)", id="truncates"),
        pytest.param("open('/.gpuportion/ledger','r+b').truncate(1 << 40)", id="grows-sparse"),
        pytest.param("f=open('/.gpuportion/ledger','r+b'); f.seek(0,2); f.write(b'x'*(64<<20))", id="grows"),
        pytest.param(
            "import os;f=open('/.gpuportion/ledger','r+b'); n=f.seek(0,2); f.seek(0); f.write(os.urandom(n))",
            id="scribbles",
        ),
    ],
)
def test_a_container_that_spoils_its_ledger_harms_only_itself(node: Node, abuse: str) -> None:
    """The daemon answers, the neighbour allocates, and all is freed at the end."""
    with node.container("1G") as bad, node.session("1G") as good:
        node.docker("exec", bad, "python3", "-c", abuse, check=False)
        rows = {row["container"]: row for row in node.ps()}
        assert len(rows) == 2
        assert good.alloc(600 * MB) == "CUDA_SUCCESS"
        assert good.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        ledgers = list((node.run_dir / "grants").glob("*/ledger/ledger"))
        assert len(ledgers) == 2
        assert all(ledger.stat().st_blocks * 512 < MB for ledger in ledgers), "it fills the host's /run"
    node.until(lambda: not node.ps())


def test_containers_outlive_the_daemon(node: Node) -> None:
    """A killed and restarted daemon still knows the grants, and the containers never noticed."""
    with node.session("1G") as client:
        before = node.ps()
        node.kill_daemon()
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"
        node.start_daemon()
        after = node.ps()
        assert [row["container"] for row in before] == [row["container"] for row in after]
    node.until(lambda: not node.ps())


def test_a_container_that_ended_while_the_daemon_was_down_is_released(node: Node) -> None:
    """What nobody told it the daemon finds out when it starts."""
    with node.container("1G") as name:
        node.kill_daemon()
        node.docker("rm", "-f", name)
        node.start_daemon()
        node.until(lambda: not node.ps())


def test_a_create_that_fails_after_the_reservation_gives_it_back(node: Node) -> None:
    """An image without the command: runc refuses, docker deletes, nothing stays reserved."""
    done = node.docker_run("1G", command=["/does-not-exist"])
    assert done.returncode == 127
    node.until(lambda: not node.ps())


def test_ps_names_the_container_as_docker_does(node: Node) -> None:
    """`gpuportion ps` shows short ids, grants and use; --json has them whole."""
    with node.container("1G") as name, node.exec_session(name) as client:
        client.alloc(300 * MB)
        (row,) = node.ps()
        assert row["container"] == node.container_id(name)
        (gpu,) = row["gpus"]
        assert gpu["limit"] == 10**9 // (1 << 20) * (1 << 20)
        assert gpu["used"] >= 300 * MB
        table = node.gpuportion("ps").stdout
        assert node.container_id(name)[:12] in table and "interposer" in table


def test_the_nvml_of_the_host_agrees_with_the_grant(node: Node) -> None:
    """Independent oracle: what NVML charges the processes is never above what the ledger counts."""
    with node.container("1G") as name, node.exec_session(name) as client:
        for size in (1, 3000, 70_000, 5 * MB, 111 * MB):
            assert client.alloc(size) == "CUDA_SUCCESS"
        (row,) = node.ps()
        counted = row["gpus"][0]["used"]
        taken = node.taken()
        assert 0 < taken <= counted <= row["gpus"][0]["limit"]


def test_a_tmpfs_run_and_a_read_only_root_change_nothing(node: Node) -> None:
    """The library lies in a folder of its own, so neither /run nor / must be writable."""
    with node.session("1G", options=["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"]) as client:
        assert client.alloc(600 * MB) == "CUDA_SUCCESS"
        assert client.alloc(600 * MB) == "CUDA_ERROR_OUT_OF_MEMORY"


def test_the_images_own_preload_still_loads(node: Node) -> None:
    """LD_PRELOAD of the image or the user is kept behind ours."""
    with node.container("1G", options=["-e", "LD_PRELOAD=libutil.so.1"]) as name:
        value = node.docker("exec", name, "sh", "-c", "tr '\\0' '\\n' < /proc/1/environ").stdout
    (line,) = re.findall(r"^LD_PRELOAD=.*$", value, re.MULTILINE)
    assert line.startswith("LD_PRELOAD=/.gpuportion/libcuda.so.1") and line.endswith("libutil.so.1")


def test_killing_init_releases_the_grant(node: Node) -> None:
    """SIGKILL to the container's first process from outside: the engine cleans up, and so do we."""
    with node.container("1G") as name:
        pid = int(node.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)
        os.kill(pid, signal.SIGKILL)
        node.until(lambda: not node.ps())
