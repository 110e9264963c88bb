"""Which calls of the simulated driver are to fail or be late: the rules that cuda/faults.c reads, checked."""

from __future__ import annotations

import re
from typing import Final

from gpuportion.errors import GpuportionError

MOST: Final = 32
RULE: Final = re.compile(r"cu\w{1,61}(@[1-9][0-9]{0,9})?(=[0-9]{1,4})?(\+[0-9]{1,8}us)?", re.ASCII)


def check(rules: str) -> None:
    """GP107 for rules, apart by commas, that are none: `cuMemAlloc_v2@3=2,cuMemcpyHtoD_v2+500us`."""
    given = rules.split(",") if rules else []
    for rule in given:
        if not RULE.fullmatch(rule):
            raise _bad(rule, "is no rule such as cuMemAlloc_v2@3=2 or cuMemcpyHtoD_v2+500us.")
    if len(given) > MOST or len(rules) > 1000:
        raise _bad(rules, f"are {len(given)} rules of {len(rules)} characters: at most {MOST}, of 1000.")


def _bad(value: str, why: str) -> GpuportionError:
    return GpuportionError("GP107", key="faults", value=value, why=why, exit_status=2)
