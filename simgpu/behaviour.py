"""What simulated devices are told to do besides what they do of themselves: fail, be late, look busy.

The rules of `faults` are those that state/faults.c reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpuportion.errors import GpuportionError

MOST: Final = 32
RULE: Final = re.compile(
    r"(cu|nvml)\w{1,58}(@[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})?)?(=[0-9]{1,4})?(\+[0-9]{1,8}us)?", re.ASCII
)
VERSION: Final = re.compile(r"[1-9][0-9]{2}\.[0-9]{1,3}(\.[0-9]{1,3})?", re.ASCII)
DRIVER_VERSION: Final = "610.43.02"


@dataclass(frozen=True, slots=True)
class Behaviour:
    faults: str = ""
    """Rules, apart by commas: `cuMemAlloc_v2@3=2,cuMemcpyHtoD_v2+500us`."""
    peers: bool = True
    """Whether devices reach each other's memory."""
    load: int = 0
    """Percentage of each device that NVML is to call busy."""
    accounting: bool = False
    """Whether NVML's accounting mode is switched on."""
    mig: bool = False
    """Whether boards that have MIG start with it switched on."""
    self_reset: bool = False
    """Whether an idle Ampere board resets itself when its MIG mode is set."""
    driver: str = DRIVER_VERSION
    """The driver's version: what MIG offers depends on it, and how many MIG devices a process sees."""

    def settings(self, devices: int) -> dict[str, object]:
        """As the state file has it. GP107 for rules that are none, or a load that is no percentage."""
        given = self.faults.split(",") if self.faults else []
        for rule in given:
            if not RULE.fullmatch(rule):
                raise _bad("faults", rule, "is no rule such as cuMemAlloc_v2@3=2 or cuMemcpyHtoD_v2+500us.")
        if len(given) > MOST or len(self.faults) > 1000:
            why = f"are {len(given)} rules of {len(self.faults)} characters: at most {MOST}, of 1000."
            raise _bad("faults", self.faults, why)
        if not VERSION.fullmatch(self.driver):
            raise _bad("driver", self.driver, "is no version such as 535.183.01.")
        if not 0 <= self.load <= 100:
            raise _bad("load", self.load, "is not a percentage from 0 to 100.")
        loads = {f"board.{i}.load": self.load for i in range(devices)}
        accounts = {f"board.{i}.accounting": int(self.accounting) for i in range(devices)}
        told = {"faults": self.faults, "no_peers": int(not self.peers), "self_reset": int(self.self_reset)}
        return {"driver.version": self.driver, **told, **loads, **accounts}


def _bad(key: str, value: object, why: str) -> GpuportionError:
    return GpuportionError("GP107", key=key, value=value, why=why, exit_status=2)
