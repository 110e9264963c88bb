"""Whom the administrator's rules refuse, number by number, and what is said then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from gpuportion.allocator.devices import Share
from gpuportion.allocator.policy import (
    ROOT,
    TRUST,
    Limits,
    Policy,
    UserRule,
    check_request,
    check_runtime,
    check_shares,
)
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request

GB = 10**9
RULES = Policy(max_memory=4 * GB, max_gpus=2, user=Limits(10 * GB, 2), runtimes=("runc", "/opt/bin/crun"))
BY_ANNOTATION, BY_ENV = Policy(requests_from="annotations"), Policy(requests_from="env")


def share(limit: int, gpu: int = 0) -> Share:
    return Share(f"GPU-{gpu}", gpu, limit)


REFUSED: list[tuple[Callable[[str], None], str, str, str]] = [  # check, what, key, hint
    (
        partial(check_request, RULES, Request(count=3)),
        "it asks for 3 GPUs; one container may have 2",
        "container.max-gpus",
        "Ask for fewer.",
    ),
    (
        partial(check_request, RULES, Request(memory=(GB, 5 * GB), count=2)),
        "it asks for 5.00 GB (4768 MiB) of a GPU's memory; one container may have 4.00 GB (3814 MiB) of each GPU",
        "container.max-memory",
        "Ask for less.",
    ),
    (
        partial(check_request, BY_ANNOTATION, Request(source="annotation+env")),
        "it asks by its environment (which an image can set, too); this node takes requests by annotations only",
        "requests-from",
        "Ask by annotations.",
    ),
    (
        partial(check_request, BY_ENV, Request(source="annotation")),
        "it asks by an annotation; this node takes requests by the environment only",
        "requests-from",
        "Ask by the environment.",
    ),
    (
        lambda subject: check_shares(RULES, [share(5 * GB)], "alice", [], subject),
        "it asks for 5.00 GB (4768 MiB) of a GPU's memory; one container may have 4.00 GB (3814 MiB) of each GPU",
        "container.max-memory",
        "Ask for less.",
    ),
    (
        lambda subject: check_shares(RULES, [share(GB)], ROOT, [[share(GB)]] * 2, subject),
        "root, who has every container that names no user, has 2 of the 2 grants that one user may have",
        "user.max-containers",
        "End one of them.",
    ),
    (
        lambda subject: check_shares(
            RULES, [share(GB), share(2 * GB, 1)], "alice", [[share(4 * GB), share(4 * GB, 1)]], subject
        ),
        "it takes 3.00 GB (2861 MiB); user alice has 8.00 GB (7629 MiB) of the 10.00 GB (9536 MiB) "
        "that one user may have",
        "user.max-memory",
        "End a container, or ask for less.",
    ),
    (
        partial(check_runtime, RULES, "/usr/bin/crun"),
        "its low-level runtime is /usr/bin/crun; allowed are runc /opt/bin/crun",
        "runtimes",
        "Name one of these in /etc/gpuportion/runtime.conf.",
    ),
    (
        partial(check_runtime, RULES, ""),
        "its low-level runtime is not known; allowed are runc /opt/bin/crun",
        "runtimes",
        "Name one of these in /etc/gpuportion/runtime.conf.",
    ),
]


@pytest.mark.parametrize(("check", "what", "key", "hint"), REFUSED, ids=[key for _, _, key, _ in REFUSED])
def test_a_refusal_has_its_numbers_its_rule_and_a_way_out(
    check: Callable[[str], None], what: str, key: str, hint: str
) -> None:
    """Word by word, for whichever container."""
    with pytest.raises(GpuportionError) as refusal:
        check('container "train"')
    assert refusal.value.text == (
        f'GP110 container "train" is refused: {what}.\n'
        f"This is a rule of the administrator ({key}; `gpuportion config show` lists them). {hint}"
    )


def test_what_just_keeps_to_the_rules_is_let_through() -> None:
    """Each number itself is allowed; what is not a rule refuses nobody."""
    check_request(RULES, Request(memory=(4 * GB, 4 * GB), count=2), "it")
    check_shares(RULES, [share(4 * GB)], "alice", [[share(4 * GB), share(2 * GB, 1)]], "it")
    check_runtime(RULES, "/any/runc", "it")
    nobody = Policy()
    check_request(nobody, Request(memory=(1 << 60,) * 16, count=16), "it")
    check_shares(nobody, [share(1 << 60)], ROOT, [[share(1 << 60)]] * 99, "it")
    check_shares(RULES, [], "alice", [[share(10 * GB)]], "it")


USERS = (
    UserRule("bot", None, Limits(grants=1)),
    UserRule("alice", 1001, Limits(memory=GB)),
    UserRule("1002", 1002, Limits(GB, 5)),
)


@pytest.mark.parametrize(
    ("user", "limits"),
    [
        ("alice", Limits(GB, 2)),
        ("1001", Limits(GB, 2)),
        ("bot", Limits(10 * GB, 1)),
        ("1002", Limits(GB, 5)),
        ("None", Limits(10 * GB, 2)),
        ("zoe", Limits(10 * GB, 2)),
    ],
)
def test_a_users_own_rule_goes_before_the_one_for_all(user: str, limits: Limits) -> None:
    """By the name in the file or its uid; what it does not say is as for all."""
    assert Policy(user=Limits(10 * GB, 2), users=USERS).limits_of(user) == limits


def test_a_user_is_called_by_the_uid_where_that_is_known() -> None:
    """Up to 64 printable characters; what is none of that is said back, cut to a bearable length."""
    rules = Policy(user_annotation=TRUST, users=USERS)
    for annotation, user in (("alice", "1001"), ("bot", "bot"), ("x" * 64, "x" * 64), (None, ROOT)):
        assert rules.user_of(annotation) == user
    with pytest.raises(GpuportionError) as refusal:
        rules.user_of("a\n" * 50)
    said = "is no name of a user. Write 1 to 64 printable characters."
    assert refusal.value.text == "GP107 gpuportion.io/user='" + r"a\n" * 40 + f"' {said}"
