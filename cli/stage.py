"""What a demonstration plays on: a daemon, a docker of its own and an image with real CUDA clients.

Everything lies in one folder under /tmp, which is removed with all that was started. Commands are shown as
one would type them, run as they stand, and what they say is printed. Knows nothing of what is played.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final

from gpuportion import client
from gpuportion.cli import built, children, rootfs
from gpuportion.cli.daemon import is_answered
from gpuportion.cli.private_dockerd import PrivateDocker
from gpuportion.errors import GpuportionError

WAIT: Final = 60.0
WIDTH: Final = 106


class Stage:
    """For the length of a `with`. `sim` names simulated GPUs; "" takes those of the machine.

    This process, too, talks to the stage's daemon from then on.
    """

    def __init__(self, sim: str) -> None:
        self.sim = sim
        self._exit = ExitStack()

    def __enter__(self) -> Stage:
        try:
            self._build()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        """Not to be cut short: who pressed Ctrl-C once may well do it again."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        self._exit.close()
        for number, handler in before.items():
            signal.signal(number, handler)

    def make_image(self, name: str, files: Mapping[str, str]) -> None:
        """An image of this machine's Python and NVIDIA's cuda-bindings; `files` are texts by path in it."""
        extra = {}
        for path, text in files.items():
            extra[path] = f"{self.folder}/{path.replace('/', '_')}"
            with open(extra[path], "w", encoding="utf-8") as file:
                file.write(text)
        self.engine.import_image(name, lambda out: rootfs.write(out, clients=["cuda-bindings"], extra=extra))

    def shell(self, *words: str, fails: bool = False) -> str:
        """Show a command, run it, show what it says and return it. It must fail if `fails`, else succeed."""
        print(shown(words), flush=True)
        done = subprocess.run(
            [_program(words[0]), *words[1:]],
            env=self.engine.client_env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=WAIT,
        )
        print(done.stdout, end="", flush=True)
        claim((done.returncode != 0) == fails, f"{shlex.join(words)} ends with status {done.returncode}")
        return done.stdout

    def logs(self, name: str) -> str:
        """What a container's program has said so far."""
        done = self.engine.run("logs", name)
        return f"{done.stdout}{done.stderr}"

    def grants(self) -> list[dict[str, Any]]:
        grants: list[dict[str, Any]] = client.ask("ps").head["grants"]
        return grants

    def gpus(self) -> list[dict[str, Any]]:
        gpus: list[dict[str, Any]] = client.ask("node").head["gpus"]
        return gpus

    def _build(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="gpuportion-demo-", dir="/tmp")
        self._exit.callback(children.remove_folder, self.folder)
        own = {"GPUPORTION_RUN_DIR": f"{self.folder}/run", "GPUPORTION_STATE_DIR": f"{self.folder}/lib"}
        os.environ.update(own)
        os.makedirs(own["GPUPORTION_RUN_DIR"])
        self._start_daemon()
        runtimes = {"gpuportion": built.path(built.RUNTIME)}
        self.engine = PrivateDocker(f"{self.folder}/docker", runtimes=runtimes, env=own)
        self._exit.enter_context(self.engine)

    def _start_daemon(self) -> None:
        flags = ["--sim", self.sim] if self.sim else []
        log = f"{self.folder}/gpuportiond.log"
        command = [sys.executable, "-m", "gpuportion", "daemon", *flags]
        process = children.spawn(command, log=log, env=os.environ)
        self._exit.callback(children.end, process)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise GpuportionError("GP306", what="the daemon", why=children.last_words(log))
            return is_answered()

        until(is_ready, "the daemon answers")


def say(text: str) -> None:
    print(f"\n# {text}\n", flush=True)


def shown(words: Sequence[str]) -> str:
    """A command as one would type it, broken where it is long."""
    lines = textwrap.wrap(f"$ {shlex.join(words)}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return " \\\n      ".join(lines)


def claim(holds: bool, what: str) -> None:
    """GpuportionError GP306 unless it holds: a demonstration that shows something else has failed."""
    if not holds:
        raise GpuportionError("GP306", what="the demo", why=f"this should hold: {what}")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what must come to be by itself; a claim that fails if it does not."""
    deadline = time.monotonic() + WAIT
    while not condition():
        claim(time.monotonic() < deadline, f"{what} (waited {WAIT:.0f} s)")
        time.sleep(0.05)


def _program(name: str) -> str:
    """`gpuportion` is this installation's, which need not be in PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if name == "gpuportion" and os.path.exists(beside) else name
