"""The whole path by runc, without an engine: launcher, daemon, hook and library, in containers of this machine's own
files; two tenants on one GPU. Where runc can't run a container at all, that is said and nothing is claimed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.gpu import grants, oci, setting
from tests.gpu.claims import Report
from tests.gpu.meter import Meter, mib, until
from tests.gpu.own_daemon import Daemon
from tests.gpu.session import EndedError, Session
from tests.gpu.setting import Setting

ASKED: Final = "4G"
LIMIT: Final = grants.whole_mib(4 * 10**9)
MIB: Final = 1 << 20
PIECE: Final = 64 * MIB
OUT_OF_MEMORY: Final = 2
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(where: Setting, report: Report) -> None:
    """All of it, where containers can be run."""
    why = _cannot(where)
    if why:
        report.skip("containers by runc", why)
        return
    try:
        with Daemon(where, "containers-daemon") as daemon:
            (daemon.cdi / "nvidia.json").write_text(json.dumps(_cdi(where)))
            tenants(where, daemon, report)
            refusal(where, daemon, report)
            torch(where, daemon, report)
    except EndedError as problem:
        report.claim("containers by runc", False, "one has ended", evidence=[str(problem)])


def _cannot(where: Setting) -> str:
    """Why no container runs here without us, or ""."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path(where.program("runc")).exists():
        return "the pack has no runc"
    folder = oci.bundle(Path(where.scratch, "plain"), ["/bin/true"], {"PATH": PATH}, [])
    command = [
        where.program("runc"),
        "--root",
        f"{where.scratch}/runc",
        "run",
        "--bundle",
        str(folder),
        "gpu-plain",
    ]
    done = grants.run(command, {"PATH": PATH}, 30)
    return f"runc: {done.stderr.strip()[-120:] or done.returncode}" if done.returncode else ""


def _cdi(where: Setting) -> dict[str, Any]:
    if where.simulated:
        from gpuportion.simgpu import cdi

        return cdi.spec(f"{where.scratch}/sim", [where.uuid])
    minor = int(where.device["minor"])
    return oci.driver_spec(where.cuda, where.nvml, where.device["driver"], minor, where.uuid)


class Container:
    """A tenant in a container; for the length of a `with`."""

    def __init__(self, where: Setting, daemon: Daemon, name: str, *words: str, asked: str = ASKED) -> None:
        """`words`: a program of the suite, and its arguments."""
        program = setting.source(where.pack, f"tests/gpu/programs/{words[0]}.py")
        folder = Path(where.scratch, name)
        library_path = os.path.dirname(where.cuda) if not where.simulated else ""
        env = {"PATH": PATH, "GPU_MEMORY_LIMIT": asked, "PYTHONDONTWRITEBYTECODE": "1"}
        if library_path:
            env["LD_LIBRARY_PATH"] = library_path
        prefixes = [where.pack, *where.prefixes]
        oci.bundle(folder, [where.python, program, *words[1:]], env, prefixes)
        launcher = setting.source(where.pack, "gpuportion/bin/gpuportion-runtime")
        self._call = [launcher, "--root", f"{where.scratch}/runc"]
        self._name = f"gpu-{os.getpid()}-{name}"
        self._env = {**daemon.env, "PATH": PATH, "GPUPORTION_RUNTIME": where.program("runc")}
        self._env.pop("LD_LIBRARY_PATH", None)
        self.session = Session(
            [*self._call, "run", "--bundle", str(folder), self._name], self._env, f"{folder}/stderr"
        )

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        try:
            self.session.end()
        finally:
            grants.run([*self._call, "delete", "--force", self._name], self._env, 30)


def tenants(where: Setting, daemon: Daemon, report: Report) -> None:
    """Two at once, each to its refusal; each keeps its memory, and the device gives neither more than its grant."""
    with Meter(where.uuid) as meter:
        with (
            Container(where, daemon, "one", "hold", "17", str(PIECE)) as one,
            Container(where, daemon, "two", "hold", "34", str(PIECE)) as two,
        ):
            seen = [one.hear(), two.hear()]
            for tenant in (one, two):
                tenant.go_on("check")
            checked = [one.hear(), two.hear()]
            shown = json.loads(daemon.command("ps", "--json").stdout or "[]")
            together = meter.now()
        gone = until(lambda: not meter.ours(), 10)
    held = all(told["total"] == LIMIT and told["refused"] == OUT_OF_MEMORY for told in seen)
    report.claim("two containers see their grants and are refused beyond them", held,
                 f"{mib(seen[0]['had'])}, {mib(seen[1]['had'])}", mib(LIMIT), evidence=[str(seen)])  # fmt: skip
    intact = all(each["intact"] for each in checked)
    report.claim("both keep their memory", intact, intact, evidence=[str(checked)])
    report.claim(
        "the device gave them no more together", together <= 2 * LIMIT, mib(together), mib(2 * LIMIT)
    )
    report.claim(
        "gpuportion ps shows both", len(_rows(shown)) == 2, len(_rows(shown)), 2, evidence=[str(shown)]
    )
    released = until(lambda: not _rows(json.loads(daemon.command("ps", "--json").stdout or "[]")), 15)
    report.claim(
        "ended, they hold nothing and their grants are gone", gone and released, f"{gone}, {released}"
    )


def _rows(shown: Any) -> list[Any]:
    return list(shown["grants"] if isinstance(shown, dict) else shown)


def refusal(where: Setting, daemon: Daemon, report: Report) -> None:
    """More than the GPU has is refused in a sentence, and no container is started."""
    try:
        with Container(where, daemon, "large", "hold", "51", str(PIECE), asked="4000G") as session:
            said: object = session.hear()
    except EndedError as problem:
        said = str(problem)
    told = said if isinstance(said, str) else ""
    report.claim(
        "more than the GPU has is refused before the start", "GP1" in told, told[-90:].strip() or said
    )


def torch(where: Setting, daemon: Daemon, report: Report) -> None:
    """PyTorch in a container, as in first contact."""
    what = "PyTorch in a container sees the grant, and is refused beyond it"
    if not setting.has(where, "torch"):
        report.skip(what, f"{where.python} has no PyTorch")
        return
    words = ["torch", "simulated"] if where.simulated else ["torch"]
    with Container(where, daemon, "torch", "hello", *words) as session:
        told = session.hear()
    holds = told.get("total") == LIMIT and told.get("over") == "OutOfMemoryError" and "problem" not in told
    report.claim(what, holds, told.get("problem") or mib(told["total"]), mib(LIMIT), evidence=[str(told)])
