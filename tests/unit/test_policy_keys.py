"""How the administrator's rules are written: every key read and written, every mistake told with line and key."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator import policy as values
from gpuportion.allocator.placement import STRATEGIES
from gpuportion.allocator.policy import UNLIMITED, Limits, Policy, UserRule
from gpuportion.allocator.policy_keys import KEYS, parse, render, written
from gpuportion.allocator.yaml_text import marked
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, Role
from gpuportion.sizes import MIB

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
UIDS = {"alice": 1001}


def read(text: str) -> Policy:
    return parse(marked(text, "config.yaml"), "config.yaml", UIDS.get)


def mistake(text: str) -> str:
    with pytest.raises(GpuportionError) as wrong:
        read(text)
    assert wrong.value.code == "GP307"
    return wrong.value.text.removeprefix("GP307 config.yaml, ")


UNDERSTOOD: list[tuple[str, Policy]] = [
    ("", Policy()),
    ("# nothing yet\n", Policy()),
    ("container:\n", Policy()),
    ("container: {max-memory: 40Gi, max-gpus: 4}", Policy(max_memory=40 << 30, max_gpus=4)),
    ("container: {max-gpus: 1}", Policy(max_gpus=1)),
    ("container: {max-gpus: 16}", Policy(max_gpus=16)),
    ("user: {max-memory: 80Gi, max-containers: 8}", Policy(user=Limits(80 << 30, 8))),
    ("user: {max-memory: unlimited, max-containers: 1000000}", Policy(user=Limits(UNLIMITED, 1_000_000))),
    ("users: {alice: {max-memory: unlimited}}", Policy(users=(UserRule("alice", 1001, Limits(UNLIMITED)),))),
    ("users:\n  1002: {max-containers: 2}", Policy(users=(UserRule("1002", 1002, Limits(None, 2)),))),
    ("users: {ci-bot: {max-containers: 2}}", Policy(users=(UserRule("ci-bot", None, Limits(None, 2)),))),
    ("users: {²: {max-containers: 2}}", Policy(users=(UserRule("²", None, Limits(None, 2)),))),
    (
        f"users: {{{'x' * 64}: {{max-containers: 2}}}}",
        Policy(users=(UserRule("x" * 64, None, Limits(None, 2)),)),
    ),
    ("user-annotation: trust", Policy(user_annotation="trust")),
    ("default: {memory-limit: 2Gi}", Policy(default=Request(memory=(2 << 30,), source="default"))),
    (
        "default: {fraction: 0.25, select: '*A100*'}",
        Policy(default=Request(fraction=Decimal("0.25"), select=("*A100*",), source="default")),
    ),
    ("default: {count: 1}", Policy(default=Request(source="default"))),
    (
        "default: {memory-limit: '1Gi,2Gi', count: 2, select: 'GPU-a,7', role: fraction}",
        Policy(
            default=Request(
                memory=(1 << 30, 2 << 30),
                count=2,
                select=("GPU-a", "7"),
                role=Role.FRACTION,
                source="default",
            )
        ),
    ),
    (
        "default: {compute: 30, mig-grow: allow, role: mig}",
        Policy(default=Request(compute=30, mig_grow=True, role=Role.MIG, source="default")),
    ),
    ("default: {mig: 1g.5gb}", Policy(default=Request(mig="1g.5gb", source="default"))),
    ("minimum: 512Mi", Policy(minimum=512 * MIB)),
    ("margin: 0", Policy(margin=0)),
    ("margin: 1Gi", Policy(margin=1 << 30)),
    ("overcommit: 1", Policy(overcommit=Decimal(1))),
    ("overcommit: 1.25", Policy(overcommit=Decimal("1.25"))),
    ("overcommit: 10.00", Policy(overcommit=Decimal(10))),
    ("requests-from: annotations", Policy(requests_from="annotations")),
    ("placement: exclusive", Policy(placement="exclusive")),
    ("runtimes: [runc, /opt/bin/crun]", Policy(runtimes=("runc", "/opt/bin/crun"))),
    ("audit: stop", Policy(audit="stop")),
    ("visible: own", Policy(visible="own")),
    ("mig: {max-idle: 90s}", Policy(mig_max_idle=90.0)),
    ("mig: {max-idle: 9999999m}", Policy(mig_max_idle=9999999 * 60.0)),
    ("mig: {max-idle: 12h}", Policy(mig_max_idle=43200.0)),
    ("mig: {max-idle: 7d}", Policy(mig_max_idle=604800.0)),
    # what just does not contradict
    (
        "container: {max-memory: 1Gi, max-gpus: 2}\nminimum: 1Gi\ndefault: {memory-limit: 1Gi, count: 2}",
        Policy(
            max_memory=1 << 30,
            max_gpus=2,
            minimum=1 << 30,
            default=Request(memory=(1 << 30, 1 << 30), count=2, source="default"),
        ),
    ),
]

DIGITS = "9" * 41
LONG = "x" * 101
TIME = "Write a time such as 90s, 30m, 12h or 7d."
RATIO = "Write a number from 1 to 10 with at most 2 decimals."
KNOWN = "a request has memory-limit fraction compute mig count select role mig-grow."

REFUSED: dict[str, list[tuple[str, str]]] = {  # what is said -> (where, what is written)
    "it is 'kill'. Write report or stop.": [("line 1, key audit", "audit: kill")],
    f"it is '{'x' * 40}'. Write report or stop.": [("line 1, key audit", f"audit: {LONG}")],
    "it is 'best'. Write binpack, spread or exclusive.": [("line 1, key placement", "placement: best")],
    "it is empty. Give it a value, or leave the line out.": [
        ("line 2, key audit", "\naudit:\n"),
        ("line 1, key runtimes", "runtimes: [runc, '']"),
        ("line 3, key users.alice.max-memory", "users:\n  alice:\n    max-memory:\n"),
    ],
    "it is a list or a block; it takes one value.": [
        ("line 1, key audit", "audit: [stop]"),
        ("line 1, key audit", "audit: {stop: 1G}"),
        ("line 1, key runtimes", "runtimes: [[runc]]"),
        ("line 3, key default.role", "default:\n  memory-limit: 4G\n  role: [mig]"),
    ],
    "it is no amount: 64 has no unit. Write 64M, 4G or 4Gi.": [
        ("line 1, key margin", "margin: 64"),
        ("line 3, key users.alice.max-memory", "users:\n  alice:\n    max-memory: 64"),
    ],
    "it is no amount: 0 has no unit. Write 4000M, 4G or 4Gi.": [("line 1, key minimum", "minimum: 0")],
    "it is no amount: 'unlimited' is not an amount of memory. Write 4000M, 4G or 4Gi.": [
        ("line 1, key margin", "margin: unlimited"),
        ("line 2, key container.max-memory", "container:\n  max-memory: unlimited"),
    ],
    "it is not known. Did you mean margin?": [("line 1, key marge", "marge: 1G")],
    "it is not known. Did you mean container.max-gpus?": [
        ("line 3, key container.max-gpu", "container:\n  max-memory: 4G\n  max-gpu: 2")
    ],
    "it is not known. Did you mean mig.max-idle?": [
        ("line 2, key mig.idle", "mig:\n  idle: 4s"),
        (f"line 1, key {'x' * 100}", f"{LONG}: 1"),
        ("line 1, key 'max\\x1b-idle'", '"max\\e-idle": 1'),
        (f"line 1, key '\\x1b{'x' * 99}'", f'"\\e{LONG}": 1'),
    ],
    "it takes further keys, such as `audit: report`.": [
        ("line 1, key container", "container: 4G"),
        ("line 1, key container", "container: [1]"),
        ("line 1, key (all of it)", "- audit"),
        ("line 1, key (all of it)", "4G"),
    ],
    "it takes further keys below it, indented.": [
        ("line 1, key users", "users: {}"),
        ("line 1, key users", "users: 4G"),
        ("line 3, key users.alice", "users:\n  ben: {max-containers: 1}\n  alice: 4G"),
        ("line 2, key users.alice", "users:\n  alice: {}"),
        ("line 1, key default", "default: 4G"),
        ("line 1, key default", "default: {}"),
    ],
    "it is '0'. Write a whole number from 1 to 16.": [
        ("line 1, key container.max-gpus", "container: {max-gpus: 0}")
    ],
    "it is '17'. Write a whole number from 1 to 16.": [
        ("line 1, key container.max-gpus", "container: {max-gpus: 17}")
    ],
    f"it is '{DIGITS[:40]}'. Write a whole number from 1 to 1000000.": [
        ("line 1, key user.max-containers", f"user: {{max-containers: {DIGITS}}}"),
        ("line 3, key users.a.max-containers", f"users:\n  a:\n    max-containers: {DIGITS}"),
    ],
    "it is '1000001'. Write a whole number from 1 to 1000000.": [
        ("line 1, key user.max-containers", "user: {max-containers: 1000001}")
    ],
    "it is '1.0'. Write a whole number from 1 to 1000000.": [
        ("line 1, key user.max-containers", "user: {max-containers: 1.0}")
    ],
    "it is not known; a user has max-memory max-containers.": [
        ("line 4, key users.alice.max-mem", "users:\n  alice:\n    max-containers: 1\n    max-mem: 4G")
    ],
    "it is no name of a user.": [
        ("line 2, key users", "users:\n  '': {max-memory: 4G}"),
        (f"line 2, key users.{'x' * 65}", f"users:\n  {'x' * 65}: {{max-memory: 4G}}"),
        ("line 2, key 'users.a\\tb'", 'users:\n  "a\\tb": {max-memory: 4G}'),
    ],
    f"it is '0.99'. {RATIO}": [("line 1, key overcommit", "overcommit: 0.99")],
    f"it is '10.01'. {RATIO}": [("line 1, key overcommit", "overcommit: 10.01")],
    f"it is '1.255'. {RATIO}": [("line 1, key overcommit", "overcommit: 1.255")],
    f"it is '.nan'. {RATIO}": [("line 1, key overcommit", "overcommit: .nan")],
    f"it is '{DIGITS[:40]}'. {RATIO}": [("line 1, key overcommit", f"overcommit: {DIGITS}")],
    f"it is '0s'. {TIME}": [("line 1, key mig.max-idle", "mig: {max-idle: 0s}")],
    f"it is '90'. {TIME}": [("line 1, key mig.max-idle", "mig: {max-idle: 90}")],
    f"it is '10000000s'. {TIME}": [("line 1, key mig.max-idle", "mig: {max-idle: 10000000s}")],
    f"it is '{DIGITS[:40]}'. {TIME}": [("line 1, key mig.max-idle", f"mig: {{max-idle: {DIGITS}}}")],
    "it takes a list, such as [runc, /opt/bin/crun].": [
        ("line 1, key runtimes", "runtimes: runc"),
        ("line 1, key runtimes", "runtimes: []"),
    ],
    "it has 'bin/runc', which is neither a name nor an absolute path.": [
        ("line 1, key runtimes", "runtimes: [bin/runc, ../crun]")
    ],
    "it has 'a\\tb', which is neither a name nor an absolute path.": [
        ("line 1, key runtimes", 'runtimes: [/opt/runc, "a\\tb"]')
    ],
    f"it is not known; {KNOWN}": [("line 3, key default.gpus", "default:\n  count: 1\n  gpus: 2")],
    "it is no request: gpuportion.io/memory-limit=4 has no unit. Write 4M, 4G or 4Gi.": [
        ("line 2, key default", "default:\n  memory-limit: 4\n")
    ],
    "it is no request: gpuportion.io/role=mig asks for nothing by itself. "
    "Add GPU_MEMORY_LIMIT, for example.": [("line 1, key default", "default: {role: mig}")],
    "it asks for more than container.max-memory, 1.00 GB (953 MiB).": [
        ("line 2, key default", "container: {max-memory: 1G}\ndefault: {memory-limit: '500M,2G', count: 2}")
    ],
    "it asks for less than the minimum, 1.07 GB (1024 MiB).": [
        ("line 2, key default", "minimum: 1Gi\ndefault: {memory-limit: '2G,1G', count: 2}")
    ],
    "it is below the minimum, 0.27 GB (256 MiB).": [
        ("line 2, key container.max-memory", "container:\n  max-memory: 255Mi")
    ],
    "it asks for more GPUs than container.max-gpus, 1.": [
        ("line 2, key default", "container: {max-gpus: 1}\ndefault: {count: 2}")
    ],
}


@pytest.mark.parametrize(("text", "policy"), UNDERSTOOD)
def test_a_rule_is_read(text: str, policy: Policy) -> None:
    """Each key, the ends of its range, and what stands for none."""
    assert read(text) == policy


@pytest.mark.parametrize(
    ("where", "says", "text"), [(where, says, text) for says, all in REFUSED.items() for where, text in all]
)
def test_a_mistake_has_its_line_and_key(where: str, says: str, text: str) -> None:
    """Nothing that isn't understood is passed over; what is said back is cut to a bearable length."""
    assert mistake(text) == f"{where}: {says}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("audit: stop\naudit: report", "line 2, key audit: it stands twice"),
        ("audit: &a stop\nplacement: *a", "line 1: aliases (*name) are not read"),
        ("a: &a [*a]", "line 1: aliases (*name) are not read"),
        ("? [audit]\n: stop", "line 1: a key must be a plain word"),
        ("audit: 'stop", "line 1, column 13: found unexpected end of stream"),
    ],
)
def test_what_is_no_tree_is_no_rule(text: str, says: str) -> None:
    """With the line, as far as it is known."""
    assert mistake(text) == says


def test_every_key_is_documented_with_its_example() -> None:
    """docs/operations.md has the table's rows, and each example is good."""
    page = OPERATIONS.read_text()
    for key in KEYS:
        assert f"| `{key.name}` | `{key.example}` | {key.meaning} |" in page
        path = key.name.split(".")
        text = "".join(f"{'  ' * at}{name}:\n" for at, name in enumerate(path[:-1]))
        assert read(f"{text}{'  ' * (len(path) - 1)}{path[-1]}: {key.example}") != Policy()


SHOWN = """\
container:
  max-memory: 40960Mi
  max-gpus: 4
user:
  max-memory: unlimited
  max-containers: 8
users:
  alice:
    max-memory: 1024Mi
  "a b":
    max-containers: unlimited
  "True":
    max-containers: 2
user-annotation: ignore
default:
  memory-limit: 1024Mi,2048Mi
  count: 2
  select: "*A100*,7"
  role: fraction
minimum: 256Mi
margin: 0
overcommit: 1.5
requests-from: both
placement: binpack
runtimes: [runc, "/opt/my runtimes/crun", "null", "FALSE"]
audit: report
visible: all
mig:
  max-idle: 30m"""


def test_rules_are_shown_as_a_file_would_have_them() -> None:
    """Word by word; amounts in MiB, a word in quotes where YAML would take it for something else."""
    assert render(written(read(SHOWN))) == SHOWN


@pytest.mark.parametrize("text", [text for text, _ in UNDERSTOOD])
def test_each_rule_is_shown_as_it_was_meant(text: str) -> None:
    """Also a default's rarer keys."""
    assert read(render(written(read(text)))) == read(text)


AMOUNTS = st.integers(256, 1 << 20).map(lambda n: n * MIB)
LIMITS = st.builds(
    Limits,
    memory=st.none() | AMOUNTS | st.just(UNLIMITED),
    grants=st.none() | st.integers(1, 1_000_000) | st.just(UNLIMITED),
)
POLICIES = st.builds(
    Policy,
    max_memory=st.none() | AMOUNTS,
    max_gpus=st.none() | st.integers(1, 16),
    user=LIMITS,
    users=st.lists(
        st.builds(
            lambda name, limits: UserRule(name, UIDS.get(name), limits),
            st.sampled_from(("alice", "ben", "true", "a b", "e\u0301", "x: y")),
            LIMITS.filter(lambda limits: limits != Limits()),
        ),
        unique_by=lambda rule: rule.name,
        max_size=3,
    ).map(tuple),
    user_annotation=st.sampled_from((values.IGNORE, values.TRUST)),
    margin=st.just(0) | AMOUNTS,
    overcommit=st.integers(100, 1000).map(lambda n: Decimal(n) / 100),
    requests_from=st.sampled_from((values.ENV, values.ANNOTATIONS, values.BOTH)),
    placement=st.sampled_from(STRATEGIES),
    runtimes=st.lists(st.sampled_from(("runc", "/opt/my runtimes/crun", "null")), max_size=2).map(tuple),
    audit=st.sampled_from((values.REPORT, values.STOP)),
    visible=st.sampled_from((values.ALL, values.OWN)),
    mig_max_idle=st.none()
    | st.builds(
        lambda n, unit: n * float(unit), st.integers(1, 9_999_999), st.sampled_from((1, 60, 3600, 86400))
    ),
)


@given(POLICIES)
def test_what_is_shown_is_what_is_in_force(policy: Policy) -> None:
    """`gpuportion config show` prints a file that means the same."""
    assert read(render(written(policy))) == policy


WORDS = st.sampled_from(
    [
        *(key.name.rpartition(".")[2] for key in KEYS),
        "container",
        "user",
        "alice",
        "4G",
        "0",
        "stop",
        "1.5",
        "",
        "null",
    ]
)
TREES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(TREES.map(json.dumps) | st.text() | TREES.map(str))
def test_any_text_is_rules_or_a_mistake(text: str) -> None:
    """JSON is YAML, too; nothing ends in anything but a Policy or a sentence with the file's name."""
    try:
        assert isinstance(read(text), Policy)
    except GpuportionError as wrong:
        assert wrong.text.startswith("GP307 config.yaml, ")
