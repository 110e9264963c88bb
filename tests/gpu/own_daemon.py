"""gpuportiond on this machine's GPUs, with folders of its own, for the length of a `with`; mounts that are left are
taken off. Knows nothing of what is granted.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.gpu.meter import until
from tests.gpu.session import EndedError
from tests.gpu.setting import Setting


class Daemon:
    """`cdi`: its folder of CDI specs."""

    def __init__(self, where: Setting, name: str = "daemon") -> None:
        folder = Path(where.scratch, name)
        folder.mkdir()
        self.log = folder / "log"
        self.state = folder / "state"
        self.cdi = folder / "cdi"
        self.cdi.mkdir()
        own = {"GPUPORTION_RUN_DIR": f"{folder}/run", "GPUPORTION_STATE_DIR": str(self.state)}
        self.env = {**where.environment(own), "PYTHONPATH": where.site}
        self._words = [
            "--run-dir",
            f"{folder}/run",
            "--state-dir",
            str(self.state),
            "--cdi-dir",
            f"{folder}/cdi",
        ]

    def __enter__(self) -> Daemon:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpuportion", "daemon", *self._words],
                env=self.env, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        if not until(lambda: self.process.poll() is not None or self.answers(), 30) or self.process.poll():
            raise EndedError(self.log.read_text())
        return self

    def answers(self) -> bool:
        return self.command("ps", "--json").returncode == 0

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gpuportion", *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(30)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith(self._words[1]):
                subprocess.run(["umount", "-l", point], check=False, capture_output=True)
