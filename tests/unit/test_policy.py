"""The administrator's rules: every key read, every mistake told with line and key, every rule checked."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion.allocator import policy as values
from gpuportion.allocator import policy_file
from gpuportion.allocator.devices import Share
from gpuportion.allocator.placement import STRATEGIES
from gpuportion.allocator.policy import (
    UNLIMITED,
    Limits,
    Policy,
    UserRule,
    check_request,
    check_runtime,
    check_shares,
)
from gpuportion.allocator.policy_keys import KEYS, parse, render, written
from gpuportion.allocator.yaml_text import marked
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, from_container
from gpuportion.sizes import MIB

GB = 10**9
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
UIDS = {"alice": 1001}


def read(text: str) -> Policy:
    return parse(marked(text, "config.yaml"), "config.yaml", UIDS.get)


def mistake(text: str) -> str:
    with pytest.raises(GpuportionError) as wrong:
        read(text)
    assert wrong.value.code == "GP307"
    return wrong.value.text


UNDERSTOOD: list[tuple[str, Policy]] = [
    ("", Policy()),
    ("# nothing yet\n", Policy()),
    ("container:\n", Policy()),
    ("container: {max-memory: 40Gi, max-gpus: 4}", Policy(max_memory=40 << 30, max_gpus=4)),
    ("user: {max-memory: 80Gi, max-containers: 8}", Policy(user=Limits(80 << 30, 8))),
    ("users: {alice: {max-memory: unlimited}}", Policy(users=(UserRule("alice", 1001, Limits(UNLIMITED)),))),
    ("users:\n  1002: {max-containers: 2}", Policy(users=(UserRule("1002", 1002, Limits(None, 2)),))),
    ("users: {ci-bot: {max-containers: 2}}", Policy(users=(UserRule("ci-bot", None, Limits(None, 2)),))),
    ("user-annotation: trust", Policy(user_annotation="trust")),
    ("default: {memory-limit: 2Gi}", Policy(default=Request(memory=(2 << 30,), source="default"))),
    (
        "default: {fraction: 0.25, select: '*A100*'}",
        Policy(default=Request(fraction=Decimal("0.25"), select=("*A100*",), source="default")),
    ),
    ("default: {count: 1}", Policy(default=Request(source="default"))),
    ("minimum: 512Mi", Policy(minimum=512 * MIB)),
    ("margin: 0", Policy(margin=0)),
    ("margin: 1Gi", Policy(margin=1 << 30)),
    ("overcommit: 1.25", Policy(overcommit=Decimal("1.25"))),
    ("requests-from: annotations", Policy(requests_from="annotations")),
    ("placement: exclusive", Policy(placement="exclusive")),
    ("runtimes: [runc, /opt/bin/crun]", Policy(runtimes=("runc", "/opt/bin/crun"))),
    ("audit: stop", Policy(audit="stop")),
    ("visible: own", Policy(visible="own")),
]

REFUSED: list[tuple[str, str]] = [
    ("audit: kill", "line 1, key audit: it is 'kill'. Write report or stop."),
    ("\naudit:\n", "line 2, key audit: it is empty."),
    ("audit: [stop]", "line 1, key audit: it is a list or a block; it takes one value."),
    ("margin: 64", "line 1, key margin: it is no amount: 64 has no unit. Write 64M, 4G or 4Gi."),
    ("margin: -1G", "line 1, key margin: it is no amount"),
    ("minimum: 0", "line 1, key minimum: it is no amount"),
    ("marge: 1G", "line 1, key marge: it is not known. Did you mean margin?"),
    (
        "container:\n  max-memory: 4G\n  max-gpu: 2",
        "line 3, key container.max-gpu: it is not known. Did you mean ",
    ),
    ("container: 4G", "line 1, key container: it takes further keys"),
    (
        "container: {max-gpus: 0}",
        "line 1, key container.max-gpus: it is '0'. Write a whole number from 1 to 16.",
    ),
    ("user: {max-containers: many}", "line 1, key user.max-containers: it is 'many'."),
    ("users: {}", "line 1, key users: it takes further keys below it"),
    (
        "users:\n  alice:\n    max-mem: 4G",
        "line 3, key users.alice.max-mem: it is not known; a user has max-memory",
    ),
    (
        "users:\n  alice:\n    max-memory: 4",
        "line 3, key users.alice.max-memory: it is no amount: 4 has no unit.",
    ),
    ("users:\n  alice: 4G", "line 2, key users.alice: it takes further keys"),
    ("overcommit: 0.5", "line 1, key overcommit: it is '0.5'. Write a number from 1 to 10"),
    ("overcommit: .nan", "line 1, key overcommit: it is '.nan'."),
    ("runtimes: runc", "line 1, key runtimes: it takes a list"),
    ("runtimes: [bin/runc]", "has 'bin/runc', which is neither a name nor an absolute path"),
    ("default: {memory: 4G}", "line 1, key default.memory: it is not known; a request has memory-limit"),
    ("default:\n  memory-limit: 4\n", "gpuportion.io/memory-limit=4 has no unit"),
    ("default: {role: mig}", "asks for nothing by itself"),
    (
        "container: {max-memory: 1G}\ndefault: {memory-limit: 2G}",
        "line 2, key default: it asks for more than",
    ),
    ("minimum: 1Gi\ndefault: {memory-limit: 1G}", "line 2, key default: it asks for less than the minimum"),
    ("container: {max-memory: 100M}", "line 1, key container.max-memory: it is below the minimum"),
    ("container: {max-gpus: 1}\ndefault: {count: 2}", "line 2, key default: it asks for more GPUs than"),
    ("audit: stop\naudit: report", "line 2, key audit: it stands twice"),
    ("audit: &a stop\nplacement: *a", "aliases (*name) are not read"),
    ("a: &a [*a]", "are not read"),
    ("? [audit]\n: stop", "line 1: a key must be a plain word"),
    ("- audit", "line 1, key (all of it): it takes further keys"),
    ("audit: 'stop", "line 1, column 13: found unexpected end of stream"),
]


@pytest.mark.parametrize(("text", "policy"), UNDERSTOOD)
def test_a_rule_is_read(text: str, policy: Policy) -> None:
    """Each key, and what stands for none."""
    assert read(text) == policy


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_a_mistake_has_its_line_and_key(text: str, says: str) -> None:
    """Nothing that isn't understood is passed over."""
    assert says in mistake(text)


def test_every_key_is_documented_with_its_example() -> None:
    """docs/operations.md has the table's rows, and each example is good."""
    page = OPERATIONS.read_text()
    for key in KEYS:
        assert f"| `{key.name}` | `{key.example}` | {key.meaning} |" in page
        path = key.name.split(".")
        text = "".join(f"{'  ' * at}{name}:\n" for at, name in enumerate(path[:-1]))
        assert read(f"{text}{'  ' * (len(path) - 1)}{path[-1]}: {key.example}") != Policy()


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


def refused(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(GpuportionError) as refusal:
        call(*arguments)
    assert refusal.value.code == "GP110"
    return refusal.value.text


def share(limit: int, gpu: int = 0) -> Share:
    return Share(f"GPU-{gpu}", gpu, limit)


def test_what_one_container_may_have_is_said_before_a_place_is_looked_for() -> None:
    """The largest of several amounts counts, and so does the number of GPUs."""
    rules = Policy(max_memory=4 * GB, max_gpus=2)
    check_request(rules, Request(memory=(4 * GB, GB), count=2), "it")
    assert "container.max-memory" in refused(
        check_request, rules, Request(memory=(GB, 5 * GB), count=2), "it"
    )
    assert "asks for 3 GPUs; one container may have 2" in refused(
        check_request, rules, Request(count=3), "it"
    )


def test_a_whole_gpu_counts_with_what_it_has() -> None:
    """Asking by a part, or for all of a GPU, is no way around the most that is allowed."""
    rules = Policy(max_memory=4 * GB)
    check_shares(rules, [share(4 * GB)], "0", [], "it")
    assert "container.max-memory" in refused(check_shares, rules, [share(80 * GB)], "0", [], "it")


def test_totals_count_all_grants_of_one_user() -> None:
    """A user's own rule goes before the one for all; what it leaves out stays."""
    rules = Policy(user=Limits(10 * GB, 2), users=(UserRule("alice", 1001, Limits(memory=UNLIMITED)),))
    held = [[share(4 * GB), share(4 * GB, 1)]]
    check_shares(rules, [share(2 * GB)], "1002", held, "it")
    assert "user.max-memory" in refused(check_shares, rules, [share(3 * GB)], "1002", held, "it")
    check_shares(rules, [share(30 * GB)], "1001", held, "it")
    assert "user.max-containers" in refused(check_shares, rules, [share(GB)], "1001", held * 2, "it")


@pytest.mark.parametrize(
    ("trust", "annotation", "user"),
    [
        ("ignore", "alice", "0"),
        ("trust", None, "0"),
        ("trust", "alice", "1001"),
        ("trust", "1001", "1001"),
        ("trust", "zoe", "zoe"),
    ],
)
def test_an_annotation_counts_where_it_is_trusted(trust: str, annotation: str | None, user: str) -> None:
    """A name that this host knows is the same user as its uid."""
    rules = Policy(user_annotation=trust, users=(UserRule("alice", 1001, Limits(GB)),))
    assert rules.user_of(annotation) == user


@pytest.mark.parametrize("annotation", ["", "a\nb", "x" * 65])
def test_an_annotation_that_is_no_name_is_refused(annotation: str) -> None:
    """Never taken for somebody else."""
    with pytest.raises(GpuportionError, match=r"gpuportion\.io/user"):
        Policy(user_annotation="trust").user_of(annotation)


@pytest.mark.parametrize(
    ("only", "env", "annotation", "good"),
    [
        ("both", True, True, True),
        ("env", True, False, True),
        ("env", False, True, False),
        ("annotations", False, True, True),
        ("annotations", True, False, False),
        ("annotations", True, True, True),
    ],
)
def test_one_way_of_asking_can_be_closed(only: str, env: bool, annotation: bool, good: bool) -> None:
    """What an annotation goes over was not read, and does not count."""
    asked = from_container(
        ["GPU_MEMORY_LIMIT=1G"] * env, {"gpuportion.io/memory-limit": "1G"} if annotation else {}
    )
    assert asked is not None
    if good:
        check_request(Policy(requests_from=only), asked, "it")
    else:
        assert "requests-from" in refused(check_request, Policy(requests_from=only), asked, "it")


def test_a_runtime_is_allowed_by_name_or_path() -> None:
    """No list allows what the launcher itself does."""
    rules = Policy(runtimes=("runc", "/opt/bin/crun"))
    for path in ("/usr/sbin/runc", "/opt/bin/crun"):
        check_runtime(rules, path, "it")
    check_runtime(Policy(), "", "it")
    for path in ("/usr/bin/crun", ""):
        assert "runtimes" in refused(check_runtime, rules, path, "it")


def test_a_file_that_others_can_write_has_no_rules_for_the_daemon(tmp_path: Path) -> None:
    """It could lift every limit; `check` still reads it."""
    path = tmp_path / "config.yaml"
    path.write_text("audit: stop\n")
    path.chmod(0o620)
    assert policy_file.read(str(path)).audit == "stop"
    with pytest.raises(GpuportionError, match="others than root can write it"):
        policy_file.read_trusted(str(path), needed=True)


def test_no_file_means_no_rules_unless_it_was_named(tmp_path: Path) -> None:
    """A file named on the command line that is not there is a mistake."""
    path = str(tmp_path / "config.yaml")
    assert policy_file.read_trusted(path, needed=False) == Policy()
    with pytest.raises(GpuportionError, match="it is not there"):
        policy_file.read_trusted(path, needed=True)


@pytest.mark.parametrize("raw", [b"audit: \xff\n", b"#" * ((1 << 20) + 1)])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, raw: bytes) -> None:
    """With a sentence."""
    path = tmp_path / "config.yaml"
    path.write_bytes(raw)
    with pytest.raises(GpuportionError, match=r"UTF-8|more than"):
        policy_file.read(str(path))
