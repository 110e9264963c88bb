"""`gpuportion run` writes an engine's command."""

from __future__ import annotations

import shlex

import pytest

from gpuportion.__main__ import main
from gpuportion.cli import portion, run
from gpuportion.errors import GpuportionError
from gpuportion.shim import request


def dry_run(words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["run", "--dry-run", *shlex.split(words)]) == 0
    return shlex.split(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--gpu-memory 4G img", "-e GPU_MEMORY_LIMIT=4G img"),
        ("--gpu-memory=4G,8G -- --rm -it img ls", "-e GPU_MEMORY_LIMIT=4G,8G --rm -it img ls"),
        ("--gpu-fraction 0.5 img --gpu-memory x", "-e GPU_FRACTION=0.5 img --gpu-memory x"),
        ("--gpus 2 --gpu-select '*A100*' img", "-e GPU_COUNT=2 -e 'GPU_SELECT=*A100*' img"),
        ("--mig 2g.10gb --mig-grow img", "-e GPU_MIG=2g.10gb -e GPU_MIG_GROW=allow img"),
        ("--gpu-compute 30 --gpu-role mig img", "-e GPU_COMPUTE=30 -e GPU_ROLE=mig img"),
        ("--gpu-memory 4G img sh -c 'a b'", "-e GPU_MEMORY_LIMIT=4G img sh -c 'a b'"),
        ("--gpu-memory 4G -e A=b img", "-e GPU_MEMORY_LIMIT=4G -e A=b img"),
    ],
)
def test_the_portion_goes_in_as_environment(
    words: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the engine's own options, which stay as they are, quoting included."""
    assert dry_run(words, capsys) == shlex.split(f"docker run --runtime=gpuportion {command}")


def test_every_key_of_a_request_has_an_option_with_an_explanation() -> None:
    """A new key must not be forgotten here, nor an old one stay."""
    assert {key.field for key in request.KEYS} == portion.HELP.keys()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("--gpu-memory 4000 img", 1, "GP102 GPU_MEMORY_LIMIT=4000 has no unit. Write 4000M, 4G or 4Gi."),
        ("--gpu-memory= img", 1, "GP102"),
        ("--gpu-memory 4G --gpu-fraction 0.5 img", 1, "GP106"),
        ("--gpus all img", 1, "GP107"),
        ("--gpu-memory 4G --runtime runc img", 1, "GP106 gpuportion run and --runtime=runc"),
        ("--gpu-memory 4G -it --runtime=nvidia img", 1, "GP106"),
        ("--gpu-memory 4G -e GPU_MEMORY_LIMIT=8G img", 1, "GP106 --gpu-memory and -e GPU_MEMORY_LIMIT=8G"),
        ("--gpu-memory 4G --env=GPU_MEMORY_LIMIT=8G img", 1, "GP106"),
        ("--gpu-memory 4G -eGPU_MEMORY_LIMIT img", 1, "GP106"),
        (
            "--gpu-memory 4G --annotation gpuportion.io/memory-limit=8G img",
            1,
            "GP106 --gpu-memory and --annotation",
        ),
        ("--gpu-memory 4G", 2, "image"),
        ("img", 2, "--gpu-memory 4G"),
        ("--engine lxc --gpu-memory 4G img", 2, "invalid choice"),
    ],
)
def test_a_mistake_is_said_before_the_engine_starts(
    words: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refusals end with 1, bad usage with 2; nothing is printed as if it were a command."""
    try:
        ended = main(["run", "--dry-run", *shlex.split(words)])
    except SystemExit as usage:
        ended = int(str(usage.code))
    out, err = capsys.readouterr()
    assert (ended, out) == (status, "")
    assert said in err


def test_what_the_container_runs_is_not_taken_for_options_of_the_engine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Behind the image everything is the container's."""
    words = "--gpu-memory 4G --rm -v /a:/b img tool --runtime=x -e GPU_MEMORY_LIMIT=9G"
    assert dry_run(words, capsys)[-3:] == ["--runtime=x", "-e", "GPU_MEMORY_LIMIT=9G"]


@pytest.mark.parametrize(
    ("rest", "options"),
    [
        ("img --x", []),
        ("--rm -it --name a img", [("--rm", ""), ("-it", ""), ("--name", "a")]),
        ("-eA=b -v/a:/b img", [("-e", "A=b"), ("-v", "/a:/b")]),
        ("-e A -- img", [("-e", "A")]),
        ("-d=true --name=x img", [("-d", "true"), ("--name", "x")]),
    ],
)
def test_the_engines_options_end_at_the_image(rest: str, options: list[tuple[str, str]]) -> None:
    """As docker's own parser reads them."""
    assert list(run.engine_options(rest.split())) == options


@pytest.mark.parametrize(("engine", "start"), [("podman", ["podman"]), ("nerdctl", ["nerdctl", "run"])])
def test_other_engines_get_the_runtime_by_its_path(engine: str, start: list[str]) -> None:
    """They have no name for it in a configuration of theirs."""
    words = run.command(engine, {"GPU_MEMORY_LIMIT": "4G"}, ["img"], lambda relative: f"/opt/{relative}")
    assert words[: len(start)] == start
    assert "--runtime=/opt/bin/gpuportion-runtime" in words
    assert words[-3:] == ["-e", "GPU_MEMORY_LIMIT=4G", "img"]


def test_an_engine_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a traceback of exec."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(GpuportionError, match="the command docker was not found"):
        run.become(["docker", "run"])
