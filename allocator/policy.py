"""The administrator's rules as values, and whether a request or its shares keep to them.

Pure: knows nothing of files (policy_file.py), of how the rules are written (policy_keys.py) or of which GPU
serves (placement.py). What is over a rule raises GpuportionError GP110 with the rule's key and its numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from gpuportion.allocator.devices import MARGIN, MINIMUM, Share
from gpuportion.allocator.placement import BINPACK, Rules
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request
from gpuportion.sizes import both

UNLIMITED: Final = 1 << 62
"""An amount or a number that nobody reaches: a rule for one user that lifts the rule for all."""

ENV, ANNOTATIONS, BOTH = "env", "annotations", "both"
BANNED: Final = {ENV: "annotation", ANNOTATIONS: "env"}
"""What each of these leaves out, as a request's source."""

REPORT, STOP = "report", "stop"
IGNORE, TRUST = "ignore", "trust"
ALL, OWN = "all", "own"

ROOT: Final = "0"
"""The user of a container that names none: who asks for containers is always root."""

LONGEST_USER: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What all grants of one user may come to: bytes, and how many there are. None: no rule."""

    memory: int | None = None
    grants: int | None = None


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class UserRule:
    """Limits of one user, by the name in the file; `uid` where this host knows that name."""

    name: str
    uid: int | None
    limits: Limits

    def means(self, user: str) -> bool:
        return user == self.name or (self.uid is not None and user == str(self.uid))


@dataclass(frozen=True, slots=True)
class Policy:
    """Every rule; the defaults are those of a node without a configuration. Amounts in bytes."""

    max_memory: int | None = None
    max_gpus: int | None = None
    user: Limits = NO_LIMITS
    users: tuple[UserRule, ...] = ()
    user_annotation: str = IGNORE
    default: Request | None = None
    minimum: int = MINIMUM
    margin: int = MARGIN
    overcommit: Decimal = Decimal(1)
    requests_from: str = BOTH
    placement: str = BINPACK
    runtimes: tuple[str, ...] = ()
    audit: str = REPORT
    visible: str = ALL
    mig_max_idle: float | None = None
    """Seconds after which an idle MIG instance is removed; None: only when its room is needed."""
    rules: Rules = field(init=False, repr=False, compare=False)
    """What of it concerns placement."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", Rules(self.placement, self.minimum))

    def user_of(self, annotation: str | None) -> str:
        """Whose a container is, by its annotation `gpuportion.io/user`: a uid where it is known, else the name."""
        if self.user_annotation == IGNORE or annotation is None:
            return ROOT
        if not annotation or len(annotation) > LONGEST_USER or not annotation.isprintable():
            why = f"is no name of a user. Write 1 to {LONGEST_USER} printable characters."
            raise GpuportionError("GP107", key="gpuportion.io/user", value=repr(annotation[:80]), why=why)
        rule = next((rule for rule in self.users if rule.means(annotation)), None)
        return annotation if rule is None or rule.uid is None else str(rule.uid)

    def limits_of(self, user: str) -> Limits:
        """The rule for all users, with what the user's own rule says before it."""
        for rule in self.users:
            if rule.means(user):
                own = rule.limits
                return Limits(
                    self.user.memory if own.memory is None else own.memory,
                    self.user.grants if own.grants is None else own.grants,
                )
        return self.user


def check_request(policy: Policy, request: Request, subject: str) -> None:
    """What can be said before a place is looked for."""
    _check_source(policy, request, subject)
    if policy.max_gpus is not None and request.count > policy.max_gpus:
        what = f"it asks for {request.count} GPUs; one container may have {policy.max_gpus}"
        raise _refusal(subject, what, "container.max-gpus", "Ask for fewer.")
    _check_most(policy, request.memory, subject)


def check_shares(
    policy: Policy, shares: Sequence[Share], user: str, held: Iterable[Sequence[Share]], subject: str
) -> None:
    """Whether `user`, whose grants have the shares `held`, may have these `shares` as well."""
    _check_most(policy, [share.limit for share in shares], subject)
    limits = policy.limits_of(user)
    if limits == NO_LIMITS:
        return
    held = list(held)
    who = f"user {user}" if user != ROOT else "root, who has every container that names no user,"
    if limits.grants is not None and len(held) >= limits.grants:
        what = f"{who} has {len(held)} of the {limits.grants} grants that one user may have"
        raise _refusal(subject, what, "user.max-containers", "End one of them.")
    asked, has = _sum(shares), sum(map(_sum, held))
    if limits.memory is not None and has + asked > limits.memory:
        what = f"it takes {both(asked)}; {who} has {both(has)} of the {both(limits.memory)} that one user may have"
        raise _refusal(subject, what, "user.max-memory", "End a container, or ask for less.")


def check_runtime(policy: Policy, path: str, subject: str) -> None:
    """Whether the low-level runtime that the launcher is going to become is one of those allowed."""
    if policy.runtimes and path not in policy.runtimes and path.rpartition("/")[2] not in policy.runtimes:
        what = f"its low-level runtime is {path or 'not known'}; allowed are {' '.join(policy.runtimes)}"
        raise _refusal(subject, what, "runtimes", "Name one of these in /etc/gpuportion/runtime.conf.")


def _check_source(policy: Policy, request: Request, subject: str) -> None:
    banned = BANNED.get(policy.requests_from)
    if banned is not None and banned in request.source.split("+"):
        ways = {"annotation": "an annotation", "env": "its environment (which an image can set, too)"}
        allowed = {"annotation": "the environment", "env": "annotations"}[banned]
        what = f"it asks by {ways[banned]}; this node takes requests by {allowed} only"
        raise _refusal(subject, what, "requests-from", f"Ask by {allowed}.")


def _check_most(policy: Policy, amounts: Sequence[int], subject: str) -> None:
    most = UNLIMITED if policy.max_memory is None else policy.max_memory
    if amounts and max(amounts) > most:
        what = f"it asks for {both(max(amounts))} of a GPU's memory; one container may have {both(most)} of each GPU"
        raise _refusal(subject, what, "container.max-memory", "Ask for less.")


def _sum(shares: Iterable[Share]) -> int:
    return sum(share.limit for share in shares)


def _refusal(subject: str, what: str, key: str, hint: str) -> GpuportionError:
    return GpuportionError("GP110", subject=subject, what=what, key=key, hint=hint)
