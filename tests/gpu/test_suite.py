"""The suite for a real GPU, packed and run on a simulated one: that it says what holds, and is seen failing.

What it claims of hardware, this cannot show: docs/gpu-results.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import elf, packing, paired
from tests.gpu.running import PARTS
from tests.native import nvidia_driver
from tests.native.debian import UnavailableError
from tests.support import native

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts in a private namespace"),
    pytest.mark.timeout(900),  # every part has a time of its own
]
BOARD = "h100-80gb"
SMALL_BOARD = "t4-16gb"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "pack"
    packing.make(folder, here_only=True)
    return folder


def run(pack: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As one runs it there: nothing of this checkout is in its way."""
    own = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **(env or {})}
    command = [sys.executable, str(pack / "run"), *options]
    return subprocess.run(command, env=own, cwd="/", capture_output=True, text=True, check=False, timeout=800)


def results(folder: Path) -> list[dict[str, Any]]:
    said = json.loads((folder / "results.json").read_text())["said"]
    assert isinstance(said, list)
    return said


def test_every_claim_holds_on_a_simulated_gpu(pack: Path, tmp_path: Path) -> None:
    """Every part says something, nothing is false, and what is kept is there."""
    done = run(pack, "--sim", BOARD, "--brief", "--python", sys.executable, "--out", str(tmp_path))
    said = results(tmp_path)
    assert [f"{each['what']}: {each['measured']}" for each in said if each["verdict"] == "FALSE"] == []
    assert done.returncode == 0, done.stderr
    assert {each["part"] for each in said} == {part.name for part in PARTS}
    assert sum(each["verdict"] == "ok" for each in said) >= 30
    assert {"cuda-symbols.txt", "getprocaddress.json", "results.json"} <= {
        each.name for each in tmp_path.iterdir()
    }


def test_without_the_library_the_run_fails(pack: Path, tmp_path: Path) -> None:
    """A suite that could not fail would prove nothing: the same run, and nobody preloads the library."""
    parts = ("first", "containment", "views")
    options = ["--sim", SMALL_BOARD, "--brief", "--python", sys.executable, "--out", str(tmp_path)]
    done = run(
        pack, *options, "--break", "no-library", *[word for part in parts for word in ("--only", part)]
    )
    assert done.returncode == 1
    assert {each["part"] for each in results(tmp_path) if each["verdict"] == "FALSE"} == set(parts)


def test_a_machine_without_a_gpu_is_told_so(pack: Path) -> None:
    """Nothing was run is another exit status than something failed, and than all is well."""
    done = run(pack)
    assert done.returncode == 3
    assert done.stderr.endswith("Nothing was run.\n")


def test_what_is_carried_fits(pack: Path) -> None:
    """The limit is on what such machines take; NVIDIA's files are the machine's own."""
    files = [file for file in pack.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < packing.LARGEST
    ours = pack / "site" / "gpuportion"
    strangers = [file for file in files if file.name.startswith(("libcuda", "libnvidia", "libcudart"))]
    assert {file.parent for file in strangers} == {ours / "sim" / "lib"}
    assert json.loads((pack / "manifest.json").read_text())["python"]


@pytest.mark.parametrize(
    ("slower", "most", "verdict"),
    [(0.0, 1.01, True), (0.1, 1.01, False), (0.01, 1.01, None)],
)
def test_a_ratio_is_decided_only_where_the_timings_decide_it(
    slower: float, most: float, verdict: bool | None
) -> None:
    """An interval on both sides of the bound decides nothing."""
    without = [100.0 + n % 7 for n in range(60)]
    with_ = [t * (1 + slower + n % 5 * 0.001 - 0.002) for n, t in enumerate(without)]
    assert paired.compare(without, with_).verdict(most) is verdict


def test_symbols_are_read_as_nm_reads_them() -> None:
    """Of our own library, whose symbols are functions alone; and of NVIDIA's, which has data as well."""
    library = native.built("simcuda", "simgpu")
    path = Path(library).with_name("lib") / "libcuda.so.1"
    assert set(elf.exports(str(path))) == _by_nm(path)
    try:
        real = nvidia_driver.driver(550).libcuda
    except UnavailableError as why:
        pytest.skip(f"needs NVIDIA's own files: {why}")
    found = elf.exports(str(real))
    assert set(found) == _by_nm(real)
    assert sum(kind == "data" for name, kind in found.items() if name.startswith("cudbg")) == 20


def _by_nm(library: Path) -> set[str]:
    listed = _output(["nm", "-D", "--defined-only", str(library)])
    return {line.split()[-1].split("@")[0] for line in listed if line.split()[-2] in "TWiuBDRVS"}


def _output(command: Sequence[str]) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
