"""What the device has given out, by NVML, all the while: the highest of many samples.

NVML tells it in two ways: by process, which some machines hide, and for the whole device, which others on the machine
change too. Both are taken; by process counts where it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

EVERY: Final = 0.01
MIB: Final = 1 << 20


@dataclass
class Highest:
    """Bytes, and how many samples say so."""

    together: int = 0
    each: dict[int, int] = field(default_factory=dict)
    device: int = 0
    samples: int = 0


class Meter:
    """For the length of a `with`. Processes that held memory before it began don't count."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.highest = Highest()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Meter:
        self._others = set(self.processes())
        self.base = self.device()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        """Forget the highest; what was there before the meter began stays known."""
        self.highest = Highest()

    def device(self) -> int:
        """Bytes in use on the device now."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def processes(self) -> dict[int, int]:
        """Bytes by process now, as far as NVML tells; a process of unknown use has 0."""
        found: dict[int, int] = {}
        for ask in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            for each in getattr(self._nvml, ask)(self._handle):
                found[each.pid] = max(found.get(each.pid, 0), each.usedGpuMemory or 0)
        return found

    def ours(self) -> dict[int, int]:
        """Those that came since it began."""
        return {pid: used for pid, used in self.processes().items() if pid not in self._others}

    def now(self) -> int:
        """Bytes that processes which came since hold together, by process where NVML tells it, else the device's
        rise."""
        self._once()
        ours = self.ours()
        return sum(ours.values()) if any(ours.values()) else max(0, self.device() - self.base)

    def peak(self) -> int:
        """The highest of `now`, of all samples."""
        return self.highest.together or self.highest.device

    @property
    def by_process(self) -> bool:
        """Whether NVML told it by process."""
        return self.highest.together > 0

    def _sample(self) -> None:
        while not self._stop.is_set():
            self._once()
            self._stop.wait(EVERY)

    def _once(self) -> None:
        highest, ours = self.highest, self.ours()
        highest.together = max(highest.together, sum(ours.values()))
        highest.device = max(highest.device, self.device() - self.base)
        highest.samples += 1
        for pid, used in ours.items():
            highest.each[pid] = max(highest.each.get(pid, 0), used)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB"


def all_mib(sizes: Iterable[int]) -> str:
    return ", ".join(mib(size) for size in sizes)
