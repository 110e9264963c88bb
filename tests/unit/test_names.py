"""What a container is called in messages."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpuportion.allocator.names import LONGEST, name_of

ID = "1a54bbdc968d" + "0" * 52


def docker_spec(folder: Path, **more: Any) -> dict[str, Any]:
    others = [{"destination": "/proc", "source": "proc"}, {"destination": "/etc/hosts"}]
    mounts = [*others, {"destination": "/etc/hostname", "source": str(folder / "hostname")}]
    return {"hostname": ID[:12], "mounts": mounts, **more}


@pytest.fixture
def docker_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "containers" / ID
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"annotations": {"io.kubernetes.cri.container-name": "train"}}, "train"),
        ({"annotations": {"io.kubernetes.cri-o.ContainerName": "k8s_x"}}, "k8s_x"),
        ({"annotations": {"nerdctl/name": "alpine-1"}}, "alpine-1"),
        ({"hostname": "worker-3"}, "worker-3"),
        ({"annotations": {"x": "y", "nerdctl/name": ""}, "hostname": "worker-3"}, "worker-3"),
        ({"hostname": ID[:12]}, ""),
        ({}, ""),
        ({"annotations": None, "mounts": None, "hostname": 7}, ""),
        ({"annotations": ["x"], "mounts": [3]}, ""),
        ({"mounts": 7}, ""),
        ({"annotations": {"nerdctl/name": "a\nb\x1b[31m" + "x" * 200}}, "a?b?[31m" + "x" * (LONGEST - 8)),
    ],
)
def test_names_come_from_the_spec(spec: dict[str, Any], name: str) -> None:
    """Printable, of bearable length, and none rather than a wrong kind."""
    assert name_of(ID, spec) == name


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: docker's files are root's")
def test_docker_keeps_the_name_beside_the_hostname(docker_folder: Path) -> None:
    """It is not in config.json; the file lies where docker mounts /etc/hostname from."""
    (docker_folder / "config.v2.json").write_text(json.dumps({"Name": "/jupyter-ann", "ID": ID}))
    assert name_of(ID, docker_spec(docker_folder)) == "jupyter-ann"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"Name": 4}', '{"Name": "/x"', "[" * 100_000])
def test_a_strange_file_gives_no_name(docker_folder: Path, content: str) -> None:
    """The path came by the spec, so it can be anything."""
    (docker_folder / "config.v2.json").write_text(content)
    assert name_of(ID, docker_spec(docker_folder)) == ""


def test_links_pipes_and_other_peoples_files_are_not_read(docker_folder: Path, tmp_path: Path) -> None:
    """Opening a pipe would wait for ever, following a link could read what is not docker's."""
    target = tmp_path / "target"
    target.write_text('{"Name": "/secret"}')
    path = docker_folder / "config.v2.json"
    path.symlink_to(target)
    assert name_of(ID, docker_spec(docker_folder)) == ""
    path.unlink()
    os.mkfifo(path)
    assert name_of(ID, docker_spec(docker_folder)) == ""
    path.unlink()
    path.write_text('{"Name": "/mine"}')
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    assert name_of(ID, docker_spec(docker_folder)) == ""


def test_a_folder_of_another_container_is_not_looked_into(docker_folder: Path) -> None:
    """The mount must be of this container."""
    (docker_folder / "config.v2.json").write_text('{"Name": "/x"}')
    assert name_of("f" * 64, docker_spec(docker_folder)) == ID[:12]


def test_only_the_container_s_own_folder_is_docker_s(docker_folder: Path) -> None:
    """Not one in it: that is a volume's."""
    deeper = docker_folder / "deeper"
    deeper.mkdir()
    (deeper / "config.v2.json").write_text('{"Name": "/x"}')
    assert name_of(ID, docker_spec(deeper)) == ""
