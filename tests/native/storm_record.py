"""What a storm did, kept in the build's folder: a line of figures now and then, and why it failed.

    storms/NAME/progress.jsonl    the seed, then what was counted so far, with the seconds since the start
    storms/NAME/failure.txt       the exception, and what both accounts said then
    storms/NAME/ledger, ...       the files themselves

A storm that goes well leaves its progress alone. Knows nothing of what a storm is.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.support import native

LONG: Final = bool(os.environ.get("GPUPORTION_TEST_LONG"))


def seed() -> int:
    """`GPUPORTION_STORM_SEED`, or a new one where the storm is a long one. It repeats what is drawn, not when."""
    return int(os.environ.get("GPUPORTION_STORM_SEED") or (secrets.randbelow(1 << 31) if LONG else 7))


class Record:
    """Used as a context: `files` are kept and `accounts` told if it is left by an exception."""

    def __init__(
        self, name: str, drawn: int, files: Sequence[str], accounts: Callable[[], object] = lambda: None
    ) -> None:
        self.folder = native.build_folder() / "storms" / name
        self.files, self.accounts = files, accounts
        self.began = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.note(seed=drawn, pid=os.getpid())

    @property
    def progress(self) -> Path:
        return self.folder / "progress.jsonl"

    def note(self, **figures: object) -> None:
        with self.progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"s": round(time.monotonic() - self.began, 1), **figures}) + "\n")

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, _: TracebackType | None
    ) -> None:
        if failure is None:
            return
        for path in self.files:
            shutil.copyfile(path, self.folder / Path(path).name)
        told = "".join(traceback.format_exception(failure))
        (self.folder / "failure.txt").write_text(f"{told}\n{self.accounts()}\n", encoding="utf-8")
        print(f"what is known of this storm is in {self.folder}")
