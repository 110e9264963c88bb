"""What is read of the files that containerd, podman and CRI-O have beside ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuportion.errors import GpuportionError
from gpuportion.shim.engines import containerd, installation, podman, toml_text
from gpuportion.shim.engines.table import ENGINES

RUNTIME = "/opt/gpuportion/bin/gpuportion-runtime"
V2, V3 = containerd.PLUGINS.values()
OURS = {
    "containerd": "conf.d/99-gpuportion.toml",
    "podman": "conf.d/gpuportion.conf",
    "crio": "conf.d/99-gpuportion.conf",
}
MAIN = {"containerd": "config.toml", "podman": "containers.conf", "crio": "crio.conf"}

Files = dict[str, str]


@pytest.fixture(autouse=True)
def no_file_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """podman reads one that its package brings."""
    monkeypatch.setattr(podman, "SHIPPED", "/nonexistent/containers.conf")


def config_of(engine: str, folder: Path, files: Files) -> str:
    """Writes the files; the one that `gpuportion install` is told."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder / (MAIN if engine == "containerd" else OURS)[engine])


def installed(engine: str, folder: Path, files: Files, *, set_default: bool = False) -> dict[str, Any]:
    """The tables of our drop-in."""
    edits = ENGINES[engine].edits(config_of(engine, folder, files), RUNTIME, set_default)
    state = str(folder / "lib")
    installation.apply(engine, installation.plan_install(engine, edits, state), state)
    return toml_text.parse((folder / OURS[engine]).read_text(), "ours")


CRI = f'[plugins."{V2}".containerd'
RUNTIMES = f"""{CRI}.runtimes.a.options]
BinaryName = "/bin/a"
{CRI}.runtimes.b.options]
BinaryName = "/bin/b"
"""
PODMAN = '[engine.runtimes]\na = ["/bin/a", "/sbin/a"]\nb = ["/bin/b"]\nc = []\nd = "/bin/d"\n'
CRIO = (
    '[crio.runtime.runtimes.a]\nruntime_path = "/bin/a"\n[crio.runtime.runtimes.b]\nruntime_path = "/bin/b"\n'
)

DEFAULTS: list[tuple[str, Files, tuple[str, str]]] = [
    ("containerd", {}, ("", "")),
    ("containerd", {"config.toml": f"version = 2\n{RUNTIMES}"}, ("", "")),
    (
        "containerd",
        {"config.toml": f'version = 2\n{CRI}]\ndefault_runtime_name = "a"\n{RUNTIMES}'},
        ("a", "/bin/a"),
    ),
    (
        "containerd",
        {"config.toml": f'version = 2\n{CRI}]\ndefault_runtime_name = "c"\n{RUNTIMES}'},
        ("c", ""),
    ),
    (
        "containerd",
        {
            "config.toml": f'version = 2\nimports = ["more/*.toml"]\n{CRI}]\ndefault_runtime_name = "a"\n{RUNTIMES}',
            "more/1.toml": f'{CRI}]\ndefault_runtime_name = "b"\n',
            "more/2.toml": f'{CRI}.runtimes.b.options]\nBinaryName = "/new/b"\n',
            "more/3.toml": f'{CRI}.runtimes.z.options]\nBinaryName = "/bin/z"\n',
        },
        ("b", "/new/b"),
    ),
    (
        "containerd",
        {"config.toml": f'version = 3\n[plugins."{V3}".containerd]\ndefault_runtime_name = "a"\n'},
        ("a", ""),
    ),
    ("podman", {}, ("", "")),
    ("podman", {"containers.conf": PODMAN}, ("", "")),
    ("podman", {"containers.conf": f'[engine]\nruntime = "a"\n{PODMAN}'}, ("a", "/bin/a")),
    ("podman", {"containers.conf": f'[engine]\nruntime = "c"\n{PODMAN}'}, ("c", "")),
    ("podman", {"containers.conf": f'[engine]\nruntime = "d"\n{PODMAN}'}, ("d", "")),
    ("podman", {"containers.conf": f'[engine]\nruntime = "e"\n{PODMAN}'}, ("e", "")),
    (
        "podman",
        {
            "containers.conf": f'[engine]\nruntime = "a"\n{PODMAN}',
            "conf.d/a.conf": '[engine]\nruntime = "b"\n',
            "conf.d/b.conf": '[engine.runtimes]\nb = ["/new/b"]\n',
            "conf.d/c.conf": '[engine.runtimes]\nd = ["/new/d"]\n',
            "conf.d/z.conf": '[engine]\nruntime = "z"\n',
        },
        ("b", "/new/b"),
    ),
    ("podman", {"conf.d/gpuportion.conf": f'[engine]\nruntime = "a"\n{PODMAN}'}, ("a", "/bin/a")),
    ("crio", {}, ("", "")),
    ("crio", {"crio.conf": CRIO}, ("", "")),
    ("crio", {"crio.conf": f'[crio.runtime]\ndefault_runtime = "a"\n{CRIO}'}, ("a", "/bin/a")),
    ("crio", {"crio.conf": f'[crio.runtime]\ndefault_runtime = "c"\n{CRIO}'}, ("c", "")),
    ("crio", {"crio.conf": '[crio.runtime]\ndefault_runtime = "a"\n[crio.runtime.runtimes.a]\n'}, ("a", "")),
    (
        "crio",
        {
            "crio.conf": f'[crio.runtime]\ndefault_runtime = "a"\n{CRIO}',
            "conf.d/10.conf": '[crio.runtime]\ndefault_runtime = "b"\n',
            "conf.d/20.conf": '[crio.runtime.runtimes.b]\nruntime_path = "/new/b"\n',
        },
        ("b", "/new/b"),
    ),
    (
        "crio",
        {
            "conf.d/10.conf": f'[crio.runtime]\ndefault_runtime = "b"\n{CRIO}',
            "conf.d/99-gpuportion.conf": '[crio.runtime]\ndefault_runtime = "a"\n',
        },
        ("a", "/bin/a"),
    ),
]


@pytest.mark.parametrize(("engine", "files", "default"), DEFAULTS, ids=range(len(DEFAULTS)))
def test_the_default_runtime_is_told_as_the_engine_reads_it(
    engine: str, files: Files, default: tuple[str, str], tmp_path: Path
) -> None:
    """The last file that names one counts; of a runtime without a program there is only the name."""
    assert ENGINES[engine].default(config_of(engine, tmp_path, files)) == default


BROKEN: list[tuple[str, Files, str]] = [
    ("containerd", {"config.toml": "a = = 1\n"}, "config.toml"),
    ("containerd", {"config.toml": 'imports = ["/nonexistent", "x.toml"]\n', "x.toml": "= 1\n"}, "x.toml"),
    ("podman", {"containers.conf": "a = = 1\n"}, "containers.conf"),
    ("podman", {"conf.d/a.conf": "a = = 1\n"}, "conf.d/a.conf"),
    ("crio", {"crio.conf": "a = = 1\n"}, "crio.conf"),
    ("crio", {"conf.d/a.conf": "a = = 1\n"}, "conf.d/a.conf"),
]


@pytest.mark.parametrize(("engine", "files", "broken"), BROKEN, ids=range(len(BROKEN)))
def test_a_mistake_is_said_with_the_file_that_has_it(
    engine: str, files: Files, broken: str, tmp_path: Path
) -> None:
    """To who installs, and to who asks for the default."""
    config = config_of(engine, tmp_path, files)
    for asked in (
        lambda: ENGINES[engine].default(config),
        lambda: [edit.put(None) for edit in ENGINES[engine].edits(config, RUNTIME, False)],
    ):
        with pytest.raises(GpuportionError) as refused:
            asked()
        assert refused.value.text.startswith(f"GP307 {tmp_path}/{broken}, line 1, ")


SAID: dict[str, tuple[Files, Files]] = {  # files, and what is edited in them later
    "containerd": (
        {"config.toml": f"version = 2\n{CRI}.runtimes.runc]\nruntime_type = '{containerd.SHIM}'\nold = 1\n"},
        {"config.toml": f"version = 2\n{CRI}.runtimes.runc]\nruntime_type = '{containerd.SHIM}'\nnew = 2\n"},
    ),
    "podman": (
        {"containers.conf": '[engine]\nruntime_supports_json = ["old"]\n'},
        {"conf.d/a.conf": '[engine]\nruntime_supports_json = ["new"]\n'},
    ),
    "crio": (
        {"crio.conf": '[crio.runtime.runtimes.runc]\nruntime_root = "/old"\n'},
        {"conf.d/a.conf": '[crio.runtime.runtimes.runc]\nruntime_root = "/new"\n'},
    ),
}


def ours(engine: str, tables: dict[str, Any]) -> object:
    """What our drop-in has taken over from the other files."""
    if engine == "podman":
        return tables["engine"]["runtime_supports_json"]
    if engine == "crio":
        return tables["crio"]["runtime"]["runtimes"]["gpuportion"]["runtime_root"]
    entry = tables["plugins"][V2]["containerd"]["runtimes"]["gpuportion"]
    return {key: entry[key] for key in ("old", "new") if key in entry}


TAKEN = {
    "containerd": ({"old": 1}, {"new": 2}),
    "podman": (["old", "gpuportion"], ["new", "gpuportion"]),
    "crio": ("/old", "/new"),
}


@pytest.mark.parametrize("engine", SAID)
def test_what_the_other_files_say_is_taken_over_at_each_installation(engine: str, tmp_path: Path) -> None:
    """Ours of last time is none of the others: it neither speaks for them nor gets another name."""
    first, then = SAID[engine]
    before, after = TAKEN[engine]
    assert ours(engine, installed(engine, tmp_path, first)) == before
    assert ours(engine, installed(engine, tmp_path, then)) == after
    names = [path.name for path in (tmp_path / "conf.d").iterdir() if "gpuportion" in path.name]
    assert names == [Path(OURS[engine]).name]


DEFAULT_KEYS = {
    "containerd": ("plugins", V2, "containerd", "default_runtime_name"),
    "podman": ("engine", "runtime"),
    "crio": ("crio", "runtime", "default_runtime"),
}


@pytest.mark.parametrize("engine", DEFAULT_KEYS)
def test_ours_becomes_the_default_only_where_that_is_asked(engine: str, tmp_path: Path) -> None:
    """By the drop-in."""
    *path, key = DEFAULT_KEYS[engine]
    assert key not in toml_text.inner(installed(engine, tmp_path, {}), *path)
    assert toml_text.inner(installed(engine, tmp_path, {}, set_default=True), *path)[key] == "gpuportion"


def test_a_later_file_without_a_default_leaves_crios(tmp_path: Path) -> None:
    """What runc's table says is not taken over then."""
    first = '[crio.runtime]\ndefault_runtime = "mine"\n[crio.runtime.runtimes.mine]\nruntime_root = "/m"\n'
    files = {"crio.conf": first, "conf.d/a.conf": '[crio.runtime.runtimes.runc]\nruntime_root = "/r"\n'}
    assert ours("crio", installed("crio", tmp_path, files)) == "/m"


def test_a_section_that_containerd_reads_after_ours_is_refused(tmp_path: Path) -> None:
    """Before 2.1 ours would not count then, under either name; a file without the section is no matter."""
    main = 'version = 3\nimports = ["conf.d/*.toml", "late.toml"]\n'
    files = {"config.toml": main, "late.toml": "version = 3\n"}
    installed("containerd", tmp_path, files)
    files["late.toml"] = f'version = 3\n[plugins."{V3}"]\na = 1\n'
    with pytest.raises(GpuportionError) as refused:
        installed("containerd", tmp_path, files)
    place = f"GP307 {tmp_path}/late.toml, plugins.{V3}: containerd reads it after 99-zz-gpuportion.toml"
    assert refused.value.text.startswith(place)


VERSIONS = {  # what containerd --version prints -> what is understood of it, and whether sections are copied
    "echo containerd github.com/containerd/containerd v2.1.3 abc": ((2, 1), False),
    "echo containerd containerd.io 2.0.5 0504; exit 1": ((2, 0), True),
    "echo containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1": ((1, 6), True),
    "echo containerd github.com/containerd/containerd v10.12.0": ((10, 12), False),
    "echo another program": (None, True),
    "echo containerd v2.1.3 >&2": (None, True),
}


@pytest.mark.parametrize("script", VERSIONS)
def test_the_version_of_containerd_is_its_own_word(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't be asked, sections are copied: right for every version."""
    program = tmp_path / "containerd"
    program.write_text(f'#!/bin/sh\n[ "$*" = --version ] || exit 1\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    version, copied = VERSIONS[script]
    assert containerd._running_version() == version
    assert containerd._needs_whole(version) is copied


@pytest.mark.parametrize(("version", "copied"), [("2.1.0", False), ("1.7.27", True)])
def test_an_installed_containerd_decides_what_is_copied(
    version: str, copied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found where administrators' programs lie, too; a copy names the file that it is of."""
    program = tmp_path / "sbin/containerd"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho containerd containerd.io {version} 05044ec\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(containerd, "PLACES", str(program.parent))
    files = {"config.toml": f'version = 2\n[plugins."{V2}"]\nsandbox_image = "mine"\n'}
    section = installed("containerd", tmp_path, files)["plugins"][V2]
    assert section.get("sandbox_image") == ("mine" if copied else None)
    text = (tmp_path / OURS["containerd"]).read_text()
    assert (f"what {tmp_path}/config.toml and its imports" in text) is copied


def test_nothing_is_said_of_a_copy_where_nothing_is_copied() -> None:
    """No other file has the section, or this containerd needs no copy."""
    for said, whole in (({}, True), ({"a": 1}, False), ({}, False)):
        text = containerd.drop_in(said, 2, RUNTIME, set_default=False, whole=whole)
        assert text.startswith(f"{installation.HEAD}version = 2\n\n[")


def test_installing_twice_leaves_containerds_file_alone(tmp_path: Path) -> None:
    """One pattern among its imports, however often."""
    installed("containerd", tmp_path, {"config.toml": "version = 3\noom_score = 1\n"})
    once = (tmp_path / "config.toml").read_text()
    installed("containerd", tmp_path, {})
    assert (tmp_path / "config.toml").read_text() == once


def test_containerds_file_is_named_in_every_refusal_to_edit_it() -> None:
    """The edit of its imports looks by itself at what it edits."""
    edit = containerd.imports("/etc/containerd/config.toml", "/p")
    changes: list[Callable[[], object]] = [
        lambda: edit.put("version = 4\n"),
        lambda: edit.put('version = 2\n"im\\u0070orts" = []\n'),
        lambda: edit.take("a = = 1\n", None),
    ]
    for change in changes:
        with pytest.raises(GpuportionError) as refused:
            change()
        assert refused.value.text.startswith("GP307 /etc/containerd/config.toml, ")
    assert edit.take(None, None) is None


def test_a_containerd_that_cannot_run_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another machine, say."""
    program = tmp_path / "containerd"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert containerd._running_version() is None
