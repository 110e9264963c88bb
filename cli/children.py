"""Daemons that this process starts and ends again, whatever happens, and the folder that they worked in.

Used by the demo and the tests. Processes are ended by pid, never by name: others on the machine may run the
same.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

WAIT: Final = 30.0
"""Seconds for a daemon to end by itself before it is killed."""


def spawn(command: Sequence[str], *, log: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a daemon that writes to the file `log`.

    It gets a session of its own, so that the terminal's Ctrl-C is ours alone and we end it in order; and it
    is told to end when this thread dies, so that not even SIGKILL leaves it behind.
    """
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with open(log, "ab") as out:
        return subprocess.Popen(
            [*guard, *command],
            cwd="/",
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; kill it if it does not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        process.send_signal(sign)
        try:
            process.wait(timeout=WAIT)
            return
        except subprocess.TimeoutExpired:
            continue


def last_words(log: str, lines: int = 5) -> str:
    """The end of a daemon's log, for the sentence that says that it failed."""
    with open(log, encoding="utf-8", errors="replace") as file:
        return "\n".join(file.read().splitlines()[-lines:])


def remove_folder(folder: str) -> None:
    """Also what a daemon that was killed left mounted in it, the innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        if point.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)
