"""`gpuportion update` and `why` with a real daemon: the page, the row, restarts, and who may ask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.daemon import GB, MIB, Daemon, Sleeper
from tests.support.session import CudaSession

from gpuportion.allocator import pages
from gpuportion.errors import RefusedError

CLIENT = str(Path(__file__).parents[1] / "support" / "cuda_session.py")


def limit_in_page(daemon: Daemon, token: str) -> int:
    return pages.read_policy(f"{daemon.run_dir}/grants/{token}/policy").gpus[0].limit


def update(daemon: Daemon, word: str, memory: str, **more: Any) -> int:
    return int(daemon.ask("update", container=word, memory=memory, **more).head["gpus"][0]["limit"])


def test_a_grant_is_resized_and_stays_so_over_a_restart(daemon: Daemon) -> None:
    """The page that the container reads, the row that counts, and what is left for others all agree."""
    granted = daemon.create("GPU_MEMORY_LIMIT=4Gi", id="train")
    with Sleeper() as container:
        with pytest.raises(RefusedError, match="it is being created"):
            update(daemon, "train", "6Gi")
        daemon.confirm(granted.token, container)
        free = daemon.gpus()[0]["free"]
        for memory in (6 << 30, 1 << 30):
            assert update(daemon, "tra", f"{memory >> 20}Mi") == memory
            assert limit_in_page(daemon, granted.token) == memory
            assert daemon.ps()[0]["gpus"][0]["limit"] == memory
            assert daemon.gpus()[0]["free"] == free + (4 << 30) - memory
        daemon.kill()
        pages.set_limit(  # as if it had died between the page and the row
            f"{daemon.run_dir}/grants/{granted.token}/policy",
            pages.read_policy(f"{daemon.run_dir}/grants/{granted.token}/policy").gpus[0].uuid,
            9 << 30,
        )
        daemon.start()
        assert daemon.ps()[0]["gpus"][0]["limit"] == 1 << 30 == limit_in_page(daemon, granted.token)


def test_it_never_grows_over_a_neighbour(daemon: Daemon) -> None:
    """Refused with what there is; the grant stays as it was."""
    granted = daemon.create("GPU_MEMORY_LIMIT=40G", id="one")
    neighbour = daemon.create("GPU_MEMORY_LIMIT=40G", id="two")
    with Sleeper() as container, Sleeper() as other:
        daemon.confirm(granted.token, container)
        daemon.confirm(neighbour.token, other)
        with pytest.raises(RefusedError, match="GP111 the grant was not changed"):
            update(daemon, "one", "60G")
        assert limit_in_page(daemon, granted.token) == 40 * GB // MIB * MIB


def test_an_unknown_container_is_told_from_those_that_are(daemon: Daemon) -> None:
    """With what there is to choose from."""
    with pytest.raises(RefusedError, match="GP305 a container 'nobody' with a portion was not found"):
        daemon.ask("why", container="nobody")


@pytest.mark.clients
def test_a_running_client_feels_it_at_its_next_allocation(daemon: Daemon) -> None:
    """It grows, it shrinks by force below use and nothing is taken, and `why` tells what was refused meanwhile."""
    pytest.importorskip("cuda.bindings", reason="needs the extra `clients`: cuda-bindings")
    tool = [sys.executable, "-m", "gpuportion"]

    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*tool, *words], env=daemon.env, capture_output=True, text=True, check=False)

    command = [*tool, "exec", "--quiet", "--gpu-memory", "1Gi", "--", sys.executable, CLIENT]
    with CudaSession(command, env=daemon.env) as client:
        word = f"pid-{client.pid}"
        assert client.alloc(900 * MIB) == "CUDA_ERROR_OUT_OF_MEMORY"
        (refusal,) = json.loads(cli("why", word, "--json").stdout)["refusals"]
        assert (
            refusal["asked"] >= 900 * MIB and refusal["grant"] == 1 << 30 and "cuMemAlloc" in refusal["call"]
        )
        assert "cuMemAlloc" in cli("why", word).stdout
        done = cli("update", word, "--gpu-memory", "2Gi")
        assert done.stdout.endswith("has 2.15 GB (2048 MiB) of GPU 0 now\n"), done.stderr
        assert client.ask("info")["total"] == 2 << 30
        assert client.alloc(900 * MIB) == "CUDA_SUCCESS"
        refused = cli("update", word, "--gpu-memory", "1Gi")
        assert refused.returncode == 1 and "--force" in refused.stderr
        assert cli("update", word, "--gpu-memory", "1Gi", "--force").returncode == 0
        assert client.alloc(16 * MIB) == "CUDA_ERROR_OUT_OF_MEMORY"
        assert client.ask("free", 0)["result"] == "CUDA_SUCCESS"
        assert client.alloc(16 * MIB) == "CUDA_SUCCESS"
        client.end()
