"""The administrator's rules as values: every rule checked, and a file of them trusted or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gpuportion.allocator import policy_file
from gpuportion.allocator.devices import Share
from gpuportion.allocator.placement import Rules
from gpuportion.allocator.policy import (
    UNLIMITED,
    Limits,
    Policy,
    UserRule,
    check_request,
    check_runtime,
    check_shares,
)
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, from_container

GB = 10**9


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


def test_what_concerns_placement_is_said_apart() -> None:
    """Also of rules that were made of others; it is no rule of its own."""
    rules = Policy(placement="spread", minimum=GB)
    assert rules.rules == Rules("spread", GB)
    assert dataclasses.replace(rules, minimum=2 * GB).rules == Rules("spread", 2 * GB)
    assert "rules=" not in repr(rules)


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
