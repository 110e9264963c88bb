"""How the administrator's rules are written: every key of /etc/gpuportion/config.yaml, as one table.

A row is a key, the field of Policy that it sets, how its value is read and written, an example, and what it
means; docs/operations.md has the same rows, which a test holds. Pure: the tree of a file in, a Policy out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final

from gpuportion import sizes
from gpuportion.allocator import policy as values
from gpuportion.allocator.placement import STRATEGIES
from gpuportion.allocator.policy import UNLIMITED, Limits, Policy, UserRule
from gpuportion.allocator.yaml_text import Marked
from gpuportion.errors import GpuportionError
from gpuportion.shim import request
from gpuportion.shim.request import Request

Resolve = Callable[[str], "int | None"]
"""The uid of a user's name on this host, None where there is no such user."""

Written = str | list[str] | dict[str, Any]


class BadValueError(Exception):
    """A value that is none; the text says why. `key` and `line` where it lies within a larger value."""

    def __init__(self, why: str, key: str = "", line: int = 0) -> None:
        super().__init__(why)
        self.key, self.line = key, line


@contextmanager
def _within(key: str, line: int) -> Iterator[None]:
    """What is wrong here is wrong with `key` of a block."""
    try:
        yield
    except BadValueError as problem:
        below = f"{key}.{problem.key}" if problem.key else key
        raise BadValueError(str(problem), below, problem.line or line) from None


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file. `name`: its path, parted by dots; `field`: of Policy, also `user.memory`."""

    name: str
    field: str
    read: Callable[[Marked, Resolve], Any]
    write: Callable[[Any], Written]
    example: str
    meaning: str


def _text(at: Marked) -> str:
    if at.value is None or at.value == "":
        raise BadValueError("is empty. Give it a value, or leave the line out.")
    if not isinstance(at.value, str):
        raise BadValueError("is a list or a block; it takes one value.")
    return at.value


def _block(at: Marked) -> dict[str, Marked]:
    if not isinstance(at.value, dict) or not at.value:
        raise BadValueError("takes further keys below it, indented.")
    return at.value


def _amount(at: Marked, _: Resolve) -> int:
    text = _text(at)
    try:
        return sizes.parse(text)
    except sizes.BadSizeError as problem:
        raise BadValueError(f"is no amount: {problem}") from None


def _amount_or_none(at: Marked, resolve: Resolve) -> int:
    return 0 if _text(at) == "0" else _amount(at, resolve)


def _at_most(read: Callable[[Marked, Resolve], int], at: Marked, resolve: Resolve) -> int:
    return UNLIMITED if at.value == "unlimited" else read(at, resolve)


def _number(most: int, at: Marked, _: Resolve) -> int:
    text = _text(at)
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise BadValueError(f"is {text[:40]!r}. Write a whole number from 1 to {most}.")
    return int(text)


def _ratio(at: Marked, _: Resolve) -> Decimal:
    text = _text(at)
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,2})?", text) or not 1 <= Decimal(text) <= 10:
        raise BadValueError(f"is {text[:40]!r}. Write a number from 1 to 10 with at most 2 decimals.")
    return Decimal(text)


def _one_of(words: Sequence[str], at: Marked, _: Resolve) -> str:
    text = _text(at)
    if text not in words:
        raise BadValueError(f"is {text[:40]!r}. Write {', '.join(words[:-1])} or {words[-1]}.")
    return text


def _runtimes(at: Marked, _: Resolve) -> tuple[str, ...]:
    if not isinstance(at.value, list) or not at.value:
        raise BadValueError("takes a list, such as [runc, /opt/bin/crun].")
    found = tuple(_text(one) for one in at.value)
    bad = [name for name in found if ("/" in name and not name.startswith("/")) or not name.isprintable()]
    if bad:
        raise BadValueError(f"has {bad[0]!r}, which is neither a name nor an absolute path.")
    return found


def _duration(at: Marked, _: Resolve) -> float:
    text = _text(at)
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise BadValueError(f"is {text[:40]!r}. Write a time such as 90s, 30m, 12h or 7d.")
    return int(match[1]) * float(SECONDS[match[2]])


SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _seconds(value: float) -> str:
    unit = next(unit for unit, length in SECONDS.items() if value % length == 0)
    return f"{int(value) // SECONDS[unit]}{unit}"


def _default(at: Marked, _: Resolve) -> Request:
    known = [key.annotation for key in request.KEYS]
    given = {}
    for name, value in _block(at).items():
        with _within(name, value.line):
            if name not in known:
                raise BadValueError(f"is not known; a request has {' '.join(known)}.")
            given[request.DOMAIN + name] = _text(value)
    try:
        found = request.from_container([], given)
    except GpuportionError as problem:
        raise BadValueError(f"is no request: {problem}") from None
    assert found is not None
    return dataclasses.replace(found, source="default")


def _written_request(asked: Request) -> dict[str, str]:
    keys = {
        "memory-limit": ",".join(map(_mebibytes, asked.memory)),
        "fraction": "" if asked.fraction is None else str(asked.fraction),
        "compute": "" if asked.compute is None else str(asked.compute),
        "mig": asked.mig or "",
        "count": str(asked.count),
        "select": ",".join(asked.select),
        "role": "" if asked.role is None else asked.role.value,
        "mig-grow": "allow" if asked.mig_grow else "",
    }
    return {key: value for key, value in keys.items() if value}


def _unlimited_or(write: Callable[[int], str], value: int) -> str:
    return "unlimited" if value == UNLIMITED else write(value)


def _mebibytes(size: int) -> str:
    return f"{size // sizes.MIB}Mi" if size else "0"


LIMITS: Final = {  # key -> (field of Limits, how it is read, how it is written)
    "max-memory": ("memory", partial(_at_most, _amount), partial(_unlimited_or, _mebibytes)),
    "max-containers": ("grants", partial(_at_most, partial(_number, 1_000_000)), partial(_unlimited_or, str)),
}


def _users(at: Marked, resolve: Resolve) -> tuple[UserRule, ...]:
    return tuple(_user(name, value, resolve) for name, value in _block(at).items())


def _user(name: str, at: Marked, resolve: Resolve) -> UserRule:
    found: dict[str, Any] = {}
    with _within(name, at.line):
        if not name or len(name) > values.LONGEST_USER or not name.isprintable():
            raise BadValueError("is no name of a user.")
        for key, value in _block(at).items():
            with _within(key, value.line):
                if key not in LIMITS:
                    raise BadValueError(f"is not known; a user has {' '.join(LIMITS)}.")
                field, read, _ = LIMITS[key]
                found[field] = read(value, resolve)
    uid = int(name) if name.isascii() and name.isdigit() else resolve(name)
    return UserRule(name, uid, Limits(**found))


def _written_users(rules: tuple[UserRule, ...]) -> dict[str, Any]:
    return {rule.name: _written_limits(rule.limits) for rule in rules}


def _written_limits(limits: Limits) -> dict[str, str]:
    found = {key: (getattr(limits, field), write) for key, (field, _, write) in LIMITS.items()}
    return {key: write(value) for key, (value, write) in found.items() if value is not None}


KEYS: Final = (
    Key("container.max-memory", "max_memory", _amount, _mebibytes, "40G",
        "the most that one container may have of each GPU"),
    Key("container.max-gpus", "max_gpus", partial(_number, request.MAX_GPUS), str, "4",
        "the most GPUs that one container may have a portion of"),
    Key("user.max-memory", "user.memory", *LIMITS["max-memory"][1:], "80G",
        "what all grants of one user may come to, on all GPUs together"),
    Key("user.max-containers", "user.grants", *LIMITS["max-containers"][1:], "8",
        "how many grants one user may have at a time"),
    Key("users", "users", _users, _written_users, "{alice: {max-memory: 160G}, ci: {max-containers: unlimited}}",
        "users for whom other totals hold, by name or uid; what is left out is as for all"),
    Key("user-annotation", "user_annotation", partial(_one_of, (values.IGNORE, values.TRUST)), str, values.TRUST,
        "whether a container's annotation gpuportion.io/user says whose it is"),
    Key("default", "default", _default, _written_request, "{memory-limit: 2G}",
        "what a container gets that asks for nothing; the keys are those of annotations"),
    Key("minimum", "minimum", _amount, _mebibytes, "512Mi", "the least that is granted on a GPU"),
    Key("margin", "margin", _amount_or_none, _mebibytes, "128Mi", "memory of each GPU that is never granted; 0: none"),
    Key("overcommit", "overcommit", _ratio, str, "1.5",
        "how many times over a GPU's memory may be granted; 1 is never more than there is"),
    Key("requests-from", "requests_from", partial(_one_of, (values.ENV, values.ANNOTATIONS, values.BOTH)), str,
        values.ANNOTATIONS, "which ways of asking are taken from a container"),
    Key("placement", "placement", partial(_one_of, STRATEGIES), str, "spread",
        "which GPU serves: binpack, spread or exclusive"),
    Key("runtimes", "runtimes", _runtimes, list, "[runc, /usr/local/bin/crun]",
        "the low-level runtimes that a container with a portion may be started by, by name or path"),
    Key("audit", "audit", partial(_one_of, (values.REPORT, values.STOP)), str, values.STOP,
        "what becomes of a container's process that has GPU memory without a grant or beyond it"),
    Key("visible", "visible", partial(_one_of, (values.ALL, values.OWN)), str, values.OWN,
        "which grants users other than root are told of: all, or their own"),
    Key("mig.max-idle", "mig_max_idle", _duration, _seconds, "30m",
        "how long an idle MIG instance is kept; without it, until its room is needed"),
)  # fmt: skip
NAMES: Final = {key.name: key for key in KEYS}
BLOCKS: Final = frozenset(name.rpartition(".")[0] for name in NAMES if "." in name)


def parse(tree: Marked | None, source: str, resolve: Resolve) -> Policy:
    """The rules in `tree`. GpuportionError GP307 for whatever in it is no rule, with its line and key."""
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, at in _leaves(tree, source):
        lines[key.name] = at.line
        try:
            found[key.field] = key.read(at, resolve)
        except BadValueError as problem:
            name = f"{key.name}.{problem.key}" if problem.key else key.name
            raise _mistake(source, problem.line or at.line, name, str(problem)) from None
    user = Limits(**{field: found.pop(f"user.{field}", None) for field in ("memory", "grants")})
    policy = Policy(user=user, **found)
    for name, why in _contradictions(policy):
        raise _mistake(source, lines[name], name, why)
    return policy


def _leaves(tree: Marked | None, source: str, above: str = "") -> Iterator[tuple[Key, Marked]]:
    if tree is None or tree.value is None:
        return
    if not isinstance(tree.value, dict):
        raise _mistake(
            source, tree.line, above or "(all of it)", "takes further keys, such as `audit: report`."
        )
    for name, at in tree.value.items():
        path = f"{above}.{name}" if above else name
        if path in NAMES:
            yield NAMES[path], at
        elif path in BLOCKS:
            yield from _leaves(at, source, path)
        else:
            raise _mistake(source, at.line, path, f"is not known. Did you mean {_nearest(path)}?")


def _nearest(path: str) -> str:
    from difflib import get_close_matches

    return get_close_matches(path[:80], NAMES, cutoff=0.0)[0]


def _contradictions(policy: Policy) -> Iterator[tuple[str, str]]:
    """(key, why) of values that are good alone and not together; each key is one that was given."""
    most, default = policy.max_memory, policy.default
    if most is not None and most < policy.minimum:
        yield "container.max-memory", f"is below the minimum, {sizes.both(policy.minimum)}."
    if default is None:
        return
    if most is not None and any(size > most for size in default.memory):
        yield "default", f"asks for more than container.max-memory, {sizes.both(most)}."
    if any(size < policy.minimum for size in default.memory):
        yield "default", f"asks for less than the minimum, {sizes.both(policy.minimum)}."
    if policy.max_gpus is not None and default.count > policy.max_gpus:
        yield "default", f"asks for more GPUs than container.max-gpus, {policy.max_gpus}."


def _mistake(source: str, line: int, key: str, why: str) -> GpuportionError:
    shown = key[:100] if key.isprintable() else ascii(key[:100])
    return GpuportionError("GP307", source=source, where=f"line {line}, key {shown}", why=f"it {why}")


def written(policy: Policy) -> dict[str, Any]:
    """Every rule that is in force, as `parse` reads it: texts, lists of texts, and blocks of them."""
    found: dict[str, Any] = {}
    for key in KEYS:
        value = _value(policy, key.field)
        if value is None or value == ():
            continue
        block, _, name = key.name.rpartition(".")
        (found.setdefault(block, {}) if block else found)[name] = key.write(value)
    return found


def _value(policy: Policy, field: str) -> Any:
    owner, _, name = field.rpartition(".")
    return getattr(getattr(policy, owner) if owner else policy, name)


def render(tree: Mapping[str, Any], indent: str = "") -> str:
    """What `written` gives as YAML."""
    return "\n".join(_line(key, value, indent) for key, value in tree.items())


def _line(key: str, value: Written, indent: str) -> str:
    if isinstance(value, dict):
        return f"{indent}{_quoted(key)}:\n{render(value, indent + '  ')}"
    text = f"[{', '.join(map(_quoted, value))}]" if isinstance(value, list) else _quoted(value)
    return f"{indent}{_quoted(key)}: {text}"


def _quoted(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9./,+-]*", text) and text.lower() not in ("null", "true", "false"):
        return text
    from json import dumps

    return dumps(text)
