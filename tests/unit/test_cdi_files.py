"""CDI specs of a host: which files count, which are refused, what is made, and what is parsed again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.gpu_specs import UUID, document

from gpuportion.allocator import cdi_files
from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.errors import GpuportionError
from gpuportion.shim import cdi

Files = Callable[..., CdiFiles]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """CdiFiles over tmp_path/etc and tmp_path/run, with no nvidia-ctk but that of tmp_path/bin."""
    for name in ("etc", "run", "bin"):
        (tmp_path / name).mkdir()

    def make() -> CdiFiles:
        where = [f"{tmp_path}/etc", f"{tmp_path}/run"]
        return CdiFiles(where, made=f"{tmp_path}/made/cdi/nvidia.json", ctk_folders=[f"{tmp_path}/bin"])

    return make


def write(path: Path, content: object) -> Path:
    text = json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)
    path.write_text(content if isinstance(content, str) else text)
    return path


def refused(files: CdiFiles) -> str:
    with pytest.raises(GpuportionError) as refusal:
        files.specs()
    assert refusal.value.code == "GP302"
    return refusal.value.text


@pytest.mark.parametrize("name", ["nvidia.yaml", "nvidia.yml", "nvidia.json"])
def test_a_spec_is_read_in_either_language(name: str, files: Files, tmp_path: Path) -> None:
    """As nvidia-ctk writes it."""
    write(tmp_path / "etc" / name, document())
    (spec,) = files().specs()
    same = cdi.parse(document(), f"{tmp_path}/etc/{name}")
    assert dataclasses.asdict(spec) == dataclasses.asdict(same)


def test_the_later_folder_wins(files: Files, tmp_path: Path) -> None:
    """What a tool keeps up to date goes before what an administrator once wrote."""
    write(tmp_path / "etc/nvidia.yaml", document())
    newer = document()
    newer["containerEdits"]["env"] = ["FROM=run"]
    write(tmp_path / "run/nvidia.yaml", newer)
    assert cdi.edits(files().specs(), cdi.GPU_KIND, [UUID]).env == ("FROM=run",)


def test_others_specs_are_not_ours(files: Files, tmp_path: Path) -> None:
    """Another kind, even broken; another suffix; a hidden file that somebody is just writing."""
    write(tmp_path / "etc/other.yaml", {**document(), "kind": "amd.com/gpu", "colour": "red"})
    write(tmp_path / "etc/broken.yaml", "{ [")
    (tmp_path / "etc/broken.json").write_bytes(b"\xff")
    write(tmp_path / "etc/nvidia.yaml.bak", "kind: nvidia.com/gpu {")
    write(tmp_path / "etc/.nvidia.yaml", "kind: nvidia.com/gpu {")
    write(tmp_path / "run/nvidia.yaml", document())
    assert [spec.source for spec in files().specs()] == [f"{tmp_path}/run/nvidia.yaml"]


BROKEN = {
    "nvidia.yaml": ("kind: nvidia.com/gpu\ndevices: [\n", "nvidia.yaml, line 3, column 1: "),
    "tab.yaml": ("kind: nvidia.com/gpu\n\tdevices: 1\n", "tab.yaml, line 2, column 1: "),
    "two.yaml": ("kind: nvidia.com/gpu\n---\nkind: x\n", "two.yaml, line 2, column 1: "),
    "nvidia.json": ('{"kind": "nvidia.com/gpu",\n}', "nvidia.json, line 2, column 1: "),
    "half.yaml": ("kind: nvidia.com/gpu\n", "half.yaml is broken: the file.cdiVersion is missing"),
    "object.yaml": ("!!python/object:os.system {kind: nvidia.com/gpu}", "object.yaml, line 1, column 1: "),
    "deep.json": ("[" * 100_000 + '"nvidia.com/gpu"', "deep.json, somewhere: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_spec_of_a_gpu_is_an_error(name: str, files: Files, tmp_path: Path) -> None:
    """Even beside a good one: skipping it would hand over something else."""
    text, sentence = BROKEN[name]
    write(tmp_path / "run/good.yaml", document())
    write(tmp_path / "etc" / name, text)
    assert sentence in refused(files())


def test_bytes_that_are_no_text_are_an_error(files: Files, tmp_path: Path) -> None:
    """Where they speak of our kind."""
    (tmp_path / "etc/nvidia.yaml").write_bytes(b"kind: nvidia.com/gpu # \xff")
    assert "nvidia.yaml can't be read: it is not UTF-8 text" in refused(files())


def test_a_spec_that_others_can_write_is_refused(files: Files, tmp_path: Path) -> None:
    """Its hooks run as root."""
    path = write(tmp_path / "etc/nvidia.yaml", document())
    path.chmod(0o664)
    assert f"can be written by others than root. Run: chown root {path} && chmod 644 {path}" in refused(
        files()
    )


def test_nothing_is_parsed_twice(files: Files, tmp_path: Path) -> None:
    """A reserve costs a few stats; a change of the file is seen at once."""
    path = write(tmp_path / "etc/nvidia.yaml", document())
    reader = files()
    first = reader.specs()
    assert reader.specs()[0] is first[0]
    changed = document()
    changed["devices"] = changed["devices"][:1]
    os.replace(write(tmp_path / "new.yaml", changed), path)
    assert list(reader.specs()[0].devices) == ["0"]
    path.unlink()
    refused(reader)


def test_folders_that_rest_are_not_listed_again(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that changed just now is: its time may not tell of another change within the same step of the clock."""
    write(tmp_path / "etc/nvidia.yaml", document())
    listed: list[str] = []
    real = os.listdir

    def listdir(path: str) -> list[str]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    reader = files()
    first = reader.specs()
    assert reader.specs() == first and len(listed) == 4
    monkeypatch.setattr(cdi_files, "SETTLED", -1)
    assert reader.specs() == reader.specs() == first and len(listed) == 6
    write(tmp_path / "run/nvidia.yaml", document())
    assert [spec.priority for spec in reader.specs()] == [0, 1]
    changed = document()
    changed["devices"] = changed["devices"][:1]
    write(tmp_path / "run/nvidia.yaml", changed)
    assert list(reader.specs()[1].devices) == ["0"]
    (tmp_path / "run/nvidia.yaml").unlink()
    assert reader.specs() == first
    (tmp_path / "etc/nvidia.yaml").chmod(0o666)
    assert "can be written by others than root" in refused(reader)


def ctk(folder: Path, script: str) -> None:
    path = folder / "bin/nvidia-ctk"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def with_files(folder: Path) -> dict[str, Any]:
    """A spec whose files exist."""
    made = document()
    for mount in made["containerEdits"]["mounts"]:
        mount["hostPath"] = str(folder / Path(mount["hostPath"]).name)
        Path(mount["hostPath"]).touch()
    return made


def test_a_missing_spec_is_made_once(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By nvidia-ctk, with an environment of its own, into the run folder; any other goes before it."""
    monkeypatch.setenv("LD_PRELOAD_OF_THE_DAEMON", "x")
    write(tmp_path / "spec.json", with_files(tmp_path))
    ctk(tmp_path, f'echo "$*:$LD_PRELOAD_OF_THE_DAEMON:$PATH" >> {tmp_path}/calls; cat {tmp_path}/spec.json')
    reader = files()
    first = reader.specs()
    assert reader.specs() == first
    assert [one.source for one in files().specs()] == [one.source for one in first]
    assert (tmp_path / "calls").read_text() == ("cdi generate --format=json::/usr/sbin:/usr/bin:/sbin:/bin\n")
    assert os.listdir(tmp_path / "made/cdi") == ["nvidia.json"]
    write(tmp_path / "etc/nvidia.yaml", document())
    assert [spec.source for spec in reader.specs()] == [f"{tmp_path}/etc/nvidia.yaml"]


def test_a_spec_that_was_made_for_another_driver_is_made_anew(files: Files, tmp_path: Path) -> None:
    """A driver's files have its version in their names."""
    write(tmp_path / "spec.json", with_files(tmp_path))
    ctk(tmp_path, f"cat {tmp_path}/spec.json")
    reader = files()
    (old,) = reader.specs()
    newer = with_files(tmp_path)
    newer["containerEdits"]["env"] = ["FROM=newer"]
    newer["containerEdits"]["mounts"][0]["hostPath"] = "/dev/null"
    write(tmp_path / "spec.json", newer)
    assert reader.specs() == (old,)
    Path(old.edits.mounts[0].source).unlink()
    assert reader.specs()[0].edits.env == ("FROM=newer",)


@pytest.mark.parametrize("name", ["libcuda.so", "libcuda.so.550.54.15", "libnvidia-ml.so.1"])
def test_a_folder_with_the_driver_in_it_is_refused(tmp_path: Path, name: str) -> None:
    """Ours stands over the files that a spec names; one in a folder that is mounted whole stays open to anybody."""
    (tmp_path / "lib/deep").mkdir(parents=True)
    (tmp_path / "lib/libcudart.so.12").touch()
    edits = cdi.ContainerEdits(mounts=(cdi.Mount(str(tmp_path / "lib"), "/usr/local/nvidia"),))
    cdi_files.require_files(edits)
    (tmp_path / "lib/deep" / name).touch()
    with pytest.raises(GpuportionError, match=f"mounts the folder .* with .*{name} in it"):
        cdi_files.require_files(edits)


def test_a_file_that_is_gone_is_told_with_the_way_out(tmp_path: Path) -> None:
    """Of a spec that somebody else keeps."""
    there = cdi.ContainerEdits(mounts=(cdi.Mount("/dev/null", "/x"),))
    cdi_files.require_files(there)
    gone = cdi.Mount(f"{tmp_path}/libcuda.so.1", "/x")
    with pytest.raises(
        GpuportionError, match=r"libcuda.so.1, which is gone: it is older than the driver"
    ) as told:
        cdi_files.require_files(cdi.ContainerEdits(mounts=(*there.mounts, gone)))
    assert told.value.code == "GP302" and "nvidia-ctk cdi generate" in told.value.text


FAILING = {
    "echo hopeless >&2; echo no driver >&2; exit 3": "failed with status 3: no driver",
    "echo open /dev/nvidiactl: No such file or directory >&2; exit 1": "open /dev/nvidiactl: not accessible",
    "exit 1": "failed with status 1: no message",
    "echo '{'": "made no usable CDI spec: its output, line 2, column 1",
    'echo \'{"cdiVersion": "0.5.0"}\'': "is broken: the file.kind is missing",
}


@pytest.mark.parametrize("script", FAILING)
def test_a_failing_nvidia_ctk_leaves_nothing(script: str, files: Files, tmp_path: Path) -> None:
    """Its last words are the user's; a spec that can't be used is not kept."""
    ctk(tmp_path, script)
    assert FAILING[script] in refused(files())
    assert not (tmp_path / "made/cdi/nvidia.json").exists()


def test_a_hanging_nvidia_ctk_is_ended(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody waits for the container."""
    monkeypatch.setattr(cdi_files, "CTK_TIMEOUT", 0.2)
    ctk(tmp_path, "exec sleep 60")
    assert "did not end within 0.2 s" in refused(files())


def test_no_spec_and_no_tool_says_what_to_do(files: Files, tmp_path: Path) -> None:
    """Also where the folders themselves are missing."""
    (tmp_path / "etc").rmdir()
    text = refused(files())
    assert f"no CDI spec of nvidia.com/gpu in {tmp_path}/etc, {tmp_path}/run, and no nvidia-ctk" in text
    assert "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" in text


def test_the_folders_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests and the demo; else the two that every engine reads."""
    monkeypatch.delenv("GPUPORTION_CDI_DIRS", raising=False)
    assert CdiFiles().where == ("/etc/cdi", "/var/run/cdi")
    monkeypatch.setenv("GPUPORTION_CDI_DIRS", "/a:/b")
    assert CdiFiles().where == ("/a", "/b")


def test_a_document_of_anything_is_no_spec(files: Files, tmp_path: Path) -> None:
    """A list, a text, nothing at all: valid YAML, and nobody's."""
    contents: list[Any] = [[], "text", None, 3]
    for at, content in enumerate(contents):
        write(tmp_path / f"etc/{at}.json", json.dumps(content))
    assert "no CDI spec" in refused(files())
