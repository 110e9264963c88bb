"""What a container asks for: its environment and annotations -> a Request, or a refusal with a sentence.

A key that is empty, misspelt or contradicts another is refused: bad input never means "no limit". Whether
and where a request can be served is not decided here; nothing is known here of GPUs, profiles or limits
of the administrator.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal

from gpuportion import sizes
from gpuportion.errors import GpuportionError

DOMAIN: Final = "gpuportion.io/"
MAX_GPUS: Final = 16
"""GPUs in one grant: GP_MAX_GPUS of region_layout.h."""

SANDBOX: Final = {
    "io.kubernetes.cri.container-type": "sandbox",
    "io.kubernetes.cri-o.ContainerType": "sandbox",
}
"""Annotations of a pod's pause container. The pod's annotations reach it too, and it needs no GPU. Its environment
asks for nothing: where that does, somebody wrote the annotation by hand, and the request counts."""


class Role(str, Enum):
    """The only way of serving that a request accepts."""

    FRACTION = "fraction"
    MIG = "mig"


Source = Literal["env", "annotation", "annotation+env", "default"]
"""Where it came from; `default` is the administrator's, for a container that asks for nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked as far as it can be without looking at a GPU.

    `memory` is empty or has one amount in bytes (whole MiB) for each of `count` GPUs, in order.
    """

    memory: tuple[int, ...] = ()
    fraction: Decimal | None = None
    compute: int | None = None
    mig: str | None = None
    count: int = 1
    select: tuple[str, ...] = ()
    role: Role | None = None
    mig_grow: bool = False
    source: Source = "env"

    @property
    def whole(self) -> bool:
        """Whole GPUs, exclusively: only a number or a choice of GPUs was given."""
        return not self.memory and self.fraction is None and self.compute is None and self.mig is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the same Request back."""
        return {
            "memory": list(self.memory),
            "fraction": None if self.fraction is None else str(self.fraction),
            "compute": self.compute,
            "mig": self.mig,
            "count": self.count,
            "select": list(self.select),
            "role": None if self.role is None else self.role.value,
            "mig_grow": self.mig_grow,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`, for what we wrote ourselves (the store): what is no Request raises."""
        return cls(
            memory=tuple(values["memory"]),
            fraction=None if values["fraction"] is None else Decimal(values["fraction"]),
            compute=values["compute"],
            mig=values["mig"],
            count=values["count"],
            select=tuple(values["select"]),
            role=None if values["role"] is None else Role(values["role"]),
            mig_grow=values["mig_grow"],
            source=values["source"],
        )


@dataclass(frozen=True, slots=True)
class Given:
    """One key as it was given: `shown` is how the user wrote it, so that a refusal can say it back."""

    shown: str
    value: str
    by: Literal["env", "annotation"]

    def refuse(self, why: str) -> GpuportionError:
        return GpuportionError("GP107", key=self.shown, value=_quoted(self.value), why=why)


def _quoted(value: str) -> str:
    """A value as it may stand in a message: one printable line of bearable length."""
    shown = value if len(value) <= 80 else value[:77] + "..."
    return shown if shown.isprintable() else repr(shown)


def _memory(given: Given) -> tuple[int, ...]:
    return tuple(_amount(given, part.strip()) for part in given.value.split(","))


def _amount(given: Given, text: str) -> int:
    if not text and "," in given.value:
        raise given.refuse("has an empty place. Write one amount for each GPU, such as 4G,8G.")
    try:
        return sizes.parse(text)
    except sizes.BadSizeError as problem:
        whole = "" if text == given.value else f"{_quoted(given.value)}: "
        raise GpuportionError("GP102", key=given.shown, problem=f"{whole}{problem}") from None


def _mebibytes(given: Given) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,12}", given.value) or int(given.value) == 0:
        raise given.refuse("is not a whole number of MiB above 0. Write 4096, or GPU_MEMORY_LIMIT=4Gi.")
    return (int(given.value) * sizes.MIB,)


def _fraction(given: Given) -> Decimal:
    if not re.fullmatch(r"[0-9]{0,4}\.?[0-9]{1,9}", given.value):
        raise given.refuse("is not a part of a GPU. Write a number above 0 and up to 1, such as 0.5.")
    fraction = Decimal(given.value)
    if not 0 < fraction <= 1:
        raise given.refuse("is not above 0 and up to 1. Write 0.5 for half a GPU, GPU_COUNT=2 for two GPUs.")
    if len(given.value.partition(".")[2]) > 4:
        raise given.refuse("has more than 4 decimals. Write 0.3333 for a third.")
    return fraction


def _whole_number(given: Given, most: int, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", given.value) or not 1 <= int(given.value) <= most:
        raise given.refuse(f"is not {what}. Write a whole number from 1 to {most}.")
    return int(given.value)


def _compute(given: Given) -> int:
    return _whole_number(given, 100, "a per cent of a GPU's compute")


def _count(given: Given) -> int:
    return _whole_number(given, MAX_GPUS, "a number of GPUs that one container can get")


def _mig(given: Given) -> str:
    if "," in given.value:
        raise given.refuse("names several profiles; a container gets one. Write one, such as 2g.10gb.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,31}", given.value):
        raise given.refuse("is not the name of a MIG profile. Write one such as 2g.10gb or 1g.10gb+me.")
    return given.value.lower()


def _select(given: Given) -> tuple[str, ...]:
    patterns = tuple(part.strip() for part in given.value.split(","))
    if any(not part or len(part) > 128 or not part.isprintable() for part in patterns) or len(patterns) > 64:
        raise given.refuse("is not a choice of GPUs. Write indexes, UUIDs or model globs, such as *A100*.")
    return patterns


def _role(given: Given) -> Role:
    try:
        return Role(given.value)
    except ValueError:
        raise given.refuse("is not a way of serving. Write fraction or mig.") from None


def _mig_grow(given: Given) -> bool:
    if given.value != "allow":
        raise given.refuse(
            "is not understood. Write allow, or leave it out for the smallest fitting profile."
        )
    return True


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be asked for, and every name that it has. `annotation` stands after DOMAIN."""

    field: str
    env: str
    annotation: str
    flag: str
    parse: Callable[[Given], Any]


KEYS: Final = (
    Key("memory", "GPU_MEMORY_LIMIT", "memory-limit", "--gpu-memory", _memory),
    Key("fraction", "GPU_FRACTION", "fraction", "--gpu-fraction", _fraction),
    Key("compute", "GPU_COMPUTE", "compute", "--gpu-compute", _compute),
    Key("mig", "GPU_MIG", "mig", "--mig", _mig),
    Key("count", "GPU_COUNT", "count", "--gpus", _count),
    Key("select", "GPU_SELECT", "select", "--gpu-select", _select),
    Key("role", "GPU_ROLE", "role", "--gpu-role", _role),
    Key("mig_grow", "GPU_MIG_GROW", "mig-grow", "--mig-grow", _mig_grow),
)
ENV_KEYS: Final = {key.env: key for key in KEYS}
ANNOTATION_KEYS: Final = {DOMAIN + key.annotation: key for key in KEYS}

USER: Final = DOMAIN + "user"
"""The annotation that says whose a container is. It asks for nothing; whether it counts, the administrator says."""

ALIASES: Final = ("NVIDIA_GPU_MEMORY_LIMIT", "NVIDIA_GPU_MEMORY_REQUEST")
"""Environment keys of another product, in whole MiB; one grant serves both, so they may not differ."""

OURS: Final = "GPU_"
BEGINNINGS: Final = (*map("".join, itertools.product("Gg", "Pp", "Uu", "_")), *ALIASES)
"""How the names in an environment that are ours begin, or are meant to: GPU_, gpu_, Gpu_ and so on."""

KNOWN: Final = frozenset({*ENV_KEYS, *ALIASES})

FOREIGN: Final = frozenset({"GPU_MEMORY_UTILIZATION"})
"""Names that look like ours and are widely used for something else (vLLM's images)."""

MOST_STRANGE: Final = 256
LONGEST_STRANGE: Final = 64
"""Names that are compared with ours, and their length: it takes time, and an image can bring a million."""

ASKING: Final = frozenset({"memory", "fraction", "compute", "mig", "count", "select"})
"""Fields that ask for something by themselves; the others only say how."""


def from_container(env: Iterable[str], annotations: Mapping[str, str]) -> Request | None:
    """The request of a container, None if it makes none. GpuportionError GP102, 106, 107 or 108 if it is bad.

    `env` is process.env of its OCI spec (`KEY=value`; of duplicates the last counts, as in runc and crun),
    `annotations` those of the spec, which go before the environment, key by key.
    """
    variables = _variables(env)
    if is_sandbox(annotations) and KNOWN.isdisjoint(variables):
        return None
    _refuse_misspelt(variables, annotations)
    given = _given(variables, annotations)
    aliases = [Given(name, variables[name], "env") for name in ALIASES if name in variables]
    if not given and not aliases:
        return None
    values = {field: _parsed(key, each) for field, (key, each) in given.items()}
    if "memory" not in given or given["memory"][1].by == "env":
        _take_aliases(values, given, aliases)
    _refuse_contradictions(values, given)
    return _request(values, given)


def from_keys(keys: Mapping[str, str]) -> Request:
    """The request of `gpuportion exec`: keys as of the environment. GP304 if it asks for nothing."""
    unknown = [name for name in keys if name not in ENV_KEYS and name not in ALIASES]
    if unknown:
        raise _misspelt(unknown[0], ENV_KEYS)
    request = from_container([f"{name}={value}" for name, value in keys.items()], {})
    if request is None:
        raise GpuportionError("GP304", why="it asks for nothing. Give --gpu-memory 4G, for example.")
    return request


def is_sandbox(annotations: Mapping[str, str]) -> bool:
    """Whether it is a pod's pause container, which gets nothing unless it asks by itself."""
    return not SANDBOX.items().isdisjoint(annotations.items())


def _variables(env: Iterable[str]) -> dict[str, str]:
    """Those that are ours by their beginnings: most of an image's are of other things."""
    variables = {}
    for entry in env:
        if entry.startswith(BEGINNINGS):
            name, _, value = entry.partition("=")
            variables[name] = value
    return variables


def _refuse_misspelt(variables: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    strange = [name for name in variables if name not in KNOWN and name[:4].upper() == OURS]
    if len(strange) > MOST_STRANGE:
        why = f"{len(strange)} environment variables begin with GPU_ and are not ours; {MOST_STRANGE} are looked at"
        raise GpuportionError("GP304", why=why)
    for name in strange:
        if name not in FOREIGN and _looks_like_ours(name):
            raise _misspelt(name, ENV_KEYS)
    for name in annotations:
        if name.lower().startswith(DOMAIN) and name not in ANNOTATION_KEYS and name != USER:
            raise _misspelt(name, ANNOTATION_KEYS)


def _looks_like_ours(name: str) -> bool:
    upper = name.upper()
    if upper.startswith("GPU_MEMORY"):
        return True
    return len(upper) <= LONGEST_STRANGE and bool(_nearest(upper, ENV_KEYS, cutoff=0.86))


def _nearest(name: str, known: Iterable[str], cutoff: float) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, list(known), n=1, cutoff=cutoff)


def _misspelt(name: str, known: Mapping[str, Key]) -> GpuportionError:
    alike = name.lower() if known is ANNOTATION_KEYS else name.upper()
    nearest = _nearest(alike[:128], known, cutoff=0.0)
    return GpuportionError("GP108", key=_quoted(name), nearest=nearest[0])


def _given(variables: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, tuple[Key, Given]]:
    given = {}
    for name, key in ANNOTATION_KEYS.items():
        if name in annotations:
            given[key.field] = (key, Given(name, annotations[name], "annotation"))
        elif key.env in variables:
            given[key.field] = (key, Given(key.env, variables[key.env], "env"))
    return given


def _parsed(key: Key, given: Given) -> Any:
    if not given.value.strip() and key.field != "memory":
        raise given.refuse("is empty. Give it a value, or leave it out.")
    return key.parse(given)


def _take_aliases(
    values: dict[str, Any], given: dict[str, tuple[Key, Given]], aliases: Iterable[Given]
) -> None:
    """NVIDIA_GPU_MEMORY_* count as the memory key; one that differs from what is already given is refused."""
    for alias in aliases:
        amount = _mebibytes(alias)
        if "memory" not in given:
            given["memory"] = (ENV_KEYS["GPU_MEMORY_LIMIT"], alias)
            values["memory"] = amount
        elif set(values["memory"]) != set(amount):
            first = given["memory"][1]
            why = (
                f"{first.value} is {sizes.mib(values['memory'][0])}, {alias.value} is {sizes.mib(amount[0])}"
            )
            raise GpuportionError("GP106", keys=f"{first.shown} and {alias.shown}", why=why)


def _refuse_contradictions(values: Mapping[str, Any], given: Mapping[str, tuple[Key, Given]]) -> None:
    if "memory" in values and "fraction" in values:
        raise _contradiction(given, "memory", "fraction", "one is an amount, the other a part of a GPU")
    amounts, count = len(values.get("memory", ())), values.get("count")
    if amounts > 1 and count not in (None, amounts):
        raise _contradiction(given, "memory", "count", f"{amounts} amounts for {count} GPUs")
    if amounts > MAX_GPUS:
        raise given["memory"][1].refuse(f"has {amounts} amounts; one container can get {MAX_GPUS} GPUs.")
    if ASKING.isdisjoint(values):
        _, first = next(iter(given.values()))
        raise first.refuse("asks for nothing by itself. Add GPU_MEMORY_LIMIT, for example.")


def _contradiction(given: Mapping[str, tuple[Key, Given]], one: str, other: str, why: str) -> GpuportionError:
    keys = " and ".join(f"{given[field][1].shown}={_quoted(given[field][1].value)}" for field in (one, other))
    return GpuportionError("GP106", keys=keys, why=why)


def _request(values: dict[str, Any], given: Mapping[str, tuple[Key, Given]]) -> Request:
    memory = values.get("memory", ())
    count = values.get("count", max(len(memory), 1))
    source: Any = "+".join(sorted({each.by for _, each in given.values()}))
    return Request(
        **{**values, "count": count, "memory": memory * count if len(memory) == 1 else memory}, source=source
    )
