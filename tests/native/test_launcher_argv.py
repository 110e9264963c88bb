"""The command line of an OCI runtime, as runc and as crun read it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.parsers import Parsers


def parse(parsers: Parsers, dialect: str, line: list[str]) -> dict[str, str]:
    good, answer = parsers.ask("argv", dialect, *line)
    assert good
    parsed = json.loads(answer)
    assert isinstance(parsed, dict)
    return parsed


# (words, what runc understands, what crun understands if that differs)
LINES: list[tuple[str, dict[str, str], dict[str, str] | None]] = [
    ("", {"verb": "none"}, None),
    ("state c", {"verb": "other"}, None),
    ("create c", {"verb": "create", "id": "c"}, None),
    ("create create", {"verb": "create", "id": "create"}, None),
    ("create --bundle create c", {"verb": "create", "bundle": "create", "id": "c"}, None),
    ("--root delete create c", {"verb": "create", "root": "delete", "id": "c"}, None),
    ("--root=delete --log create start c", {"verb": "other", "root": "delete", "log": "create"}, None),
    ("--log=/l --log-format=json run c", {"verb": "run", "log": "/l", "log_format": "json", "id": "c"}, None),
    ("--debug --systemd-cgroup create c", {"verb": "create", "id": "c"}, None),
    ("--debug=false create c", {"verb": "create", "id": "c"}, None),
    ("--rootless true create c", {"verb": "create", "id": "c"}, None),
    ("create --bundle /b --pid-file p c", {"verb": "create", "bundle": "/b", "id": "c"}, None),
    ("create --bundle=/b --bundle=/d c", {"verb": "create", "bundle": "/d", "id": "c"}, None),
    ("create -b /b c", {"verb": "create", "bundle": "/b", "id": "c"}, None),
    (
        "create -b=/b c",
        {"verb": "create", "bundle": "/b", "id": "c"},
        {"verb": "create", "bundle": "=/b", "id": "c"},
    ),
    (
        "create -bundle /b c",
        {"verb": "create", "bundle": "/b", "id": "c"},
        {"verb": "create", "bundle": "undle", "id": "/b"},
    ),
    (
        "create -b/b c",
        {"verb": "create", "id": "c", "unsure": "yes"},
        {"verb": "create", "bundle": "/b", "id": "c"},
    ),
    (
        "create --bund /b c",
        {"verb": "create", "id": "c", "unsure": "yes"},
        {"verb": "create", "bundle": "/b", "id": "c"},
    ),
    (
        "run -db /b c",
        {"verb": "run", "id": "c", "unsure": "yes"},
        {"verb": "run", "bundle": "/b", "id": "c"},
    ),
    ("create c --bundle /b", {"verb": "create", "bundle": "/b", "id": "c"}, None),
    ("create --preserve-fds 3 --console-socket create c", {"verb": "create", "id": "c"}, None),
    ("create --no-pivot --no-new-keyring c", {"verb": "create", "id": "c"}, None),
    ("create -- --bundle", {"verb": "create", "id": "--bundle"}, None),
    ("create --bundle", {"verb": "create", "broken": "yes"}, None),
    ("create c --bundle", {"verb": "create", "id": "c", "broken": "yes"}, None),
    ("--root", {"verb": "none", "broken": "yes"}, None),
    ("create --bundle -- c", {"verb": "create", "bundle": "--", "id": "c"}, None),
    ("create --bundle= c", {"verb": "create", "bundle": "", "id": "c"}, None),
    ("create - ", {"verb": "create", "id": "-"}, None),
    ("create --help", {"verb": "create", "help": "yes"}, None),
    ("--version=0 create --help=F c", {"verb": "create", "id": "c"}, None),
    ("--version", {"verb": "none", "version": "yes"}, None),
    ("-v", {"verb": "none", "version": "yes"}, None),
    ("-V", {"verb": "none", "unsure": "yes"}, {"verb": "none", "version": "yes"}),
    ("--version=false create c", {"verb": "create", "id": "c"}, None),
    ("delete --force c", {"verb": "delete", "id": "c"}, None),
    ("delete -f c", {"verb": "delete", "id": "c"}, None),
    ("delete c --force", {"verb": "delete", "id": "c"}, None),
    ("exec --process p create", {"verb": "other"}, None),
    ("kill create 9", {"verb": "other"}, None),
    ("features", {"verb": "other"}, None),
    (
        "restore --image-path /i --work-path /w --detach --pid-file p -no-subreaper --bundle /b c",
        {"verb": "restore", "bundle": "/b", "id": "c"},
        # crun has no such option, and after it no --bundle is in doubt
        {"verb": "restore", "bundle": "/b", "id": "c", "unsure": "yes"},
    ),
    (
        "create -f /x/config.json c",
        {"verb": "create", "id": "c", "unsure": "yes"},
        {"verb": "create", "config": "/x/config.json", "id": "c"},
    ),
    # Options of a runtime newer than the tables: the verb, the bundle and the id must still be found.
    ("--newer create c", {"verb": "create", "id": "c", "unsure": "yes"}, None),
    ("--newer /value create c", {"verb": "create", "id": "c", "unsure": "yes"}, None),
    ("--newer=1 create c", {"verb": "create", "id": "c", "unsure": "yes"}, None),
    (
        "create --newer /value --bundle /b c",
        {"verb": "create", "bundle": "/b", "id": "c", "unsure": "yes"},
        None,
    ),
    ("create --newer --bundle /b c", {"verb": "create", "bundle": "/b", "id": "c", "unsure": "yes"}, None),
]


@pytest.mark.parametrize("words,runc,crun", LINES, ids=[line[0] or "(nothing)" for line in LINES])
def test_a_line_is_read_as_the_runtime_reads_it(
    parsers: Parsers, words: str, runc: dict[str, str], crun: dict[str, str] | None
) -> None:
    """Verb, bundle, id and log are found, in both grammars."""
    assert parse(parsers, "runc", words.split()) == runc
    assert parse(parsers, "crun", words.split()) == (runc if crun is None else crun)


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
IDS = st.from_regex(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,20}", fullmatch=True)
GLOBAL = ["--root", "--log", "--log-format", "--rootless"]
FLAGS = ["--no-pivot", "--no-new-keyring"]
OWN = ["--bundle", "--pid-file", "--console-socket", "--preserve-fds"]


@st.composite
def pieces(draw: st.DrawFn, names: list[str], flags: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words of options, and the last value of each."""
    words: list[str] = []
    values: dict[str, str] = {}
    for name in draw(st.lists(st.sampled_from(names + flags), max_size=4)):
        if name in flags:
            words.append(name)
            continue
        value = draw(VALUES)
        values[name.lstrip("-").replace("-", "_")] = value
        words += [f"{name}={value}"] if draw(st.booleans()) else [name, value]
    return words, values


@settings(max_examples=400)
@given(
    before=pieces(GLOBAL, ["--debug", "--systemd-cgroup"]),
    verb=st.sampled_from(["create", "run", "restore"]),
    after=pieces(OWN, FLAGS),
    name=IDS,
    dialect=st.sampled_from(["runc", "crun"]),
)
def test_whatever_stands_in_values_is_no_verb_and_no_id(
    parsers: Parsers,
    before: tuple[list[str], dict[str, str]],
    verb: str,
    after: tuple[list[str], dict[str, str]],
    name: str,
    dialect: str,
) -> None:
    """Values that look like verbs, options or ids change nothing."""
    parsed = parse(parsers, dialect, [*before[0], verb, *after[0], name])
    kept = {"root", "log", "log_format", "bundle"}
    given_values = {key: value for key, value in {**before[1], **after[1]}.items() if key in kept}
    assert parsed == {"verb": verb, "id": name, **given_values}


@settings(max_examples=400)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["create", "-b", "--", "-", "--bundle", "-=", "---", "--=x", "--r"]), VALUES
        ),
        max_size=10,
    ),
    st.sampled_from(["runc", "crun"]),
)
def test_no_line_is_too_odd(parsers: Parsers, line: list[str], dialect: str) -> None:
    """Any words at all are parsed into something; the sanitizers watch."""
    assert "verb" in parse(parsers, dialect, line)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("words", [line[0] for line in LINES if line[0].startswith(("create", "run"))])
def test_the_bundle_is_the_one_that_the_runtime_opens(
    parsers: Parsers, tmp_path: Path, runtime: str, words: str
) -> None:
    """The real runtime, asked to create from nothing, names the bundle that our parser found."""
    line = words.split()
    parsed = parse(parsers, runtime, line)
    try:
        done = subprocess.run(
            [runtime, "--root", str(tmp_path / "root"), *line],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip(f"needs {runtime}")
    if "bundle" not in parsed or "help" in parsed or "broken" in parsed:
        return
    said = done.stdout + done.stderr
    assert done.returncode != 0
    if "chdir" in said or "realpath" in said:
        assert parsed["bundle"] in said
