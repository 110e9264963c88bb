"""Where our options end and another program's begin."""

from __future__ import annotations

import argparse

import pytest

from gpuportion.cli import arguments, exec, run

OPTIONS = {"--memory": True, "--dry-run": False, "-q": False}


@pytest.mark.parametrize(
    ("words", "own", "rest"),
    [
        ("", "", ""),
        ("img", "", "img"),
        ("--memory 4G img", "--memory 4G", "img"),
        ("--memory=4G img", "--memory=4G", "img"),
        ("--dry-run img --dry-run", "--dry-run", "img --dry-run"),
        ("--memory 4G --rm img", "--memory 4G", "--rm img"),
        ("--dry-run --memory 4G -q img", "--dry-run --memory 4G -q", "img"),
        ("--memory 4G -- --memory 5G", "--memory 4G", "--memory 5G"),
        ("-- --memory 5G", "", "--memory 5G"),
        ("img -- x", "", "img -- x"),
        ("-q -- img -- x", "-q", "img -- x"),
        ("--memory", "--memory", ""),
        ("--memory -- img", "--memory --", "img"),
    ],
)
def test_the_rest_begins_where_no_option_of_ours_stands(words: str, own: str, rest: str) -> None:
    """Only a `--` right behind our options is ours; behind the first foreign word nothing is looked at."""
    assert arguments.split(words.split(), OPTIONS) == (own.split(), rest.split())


@pytest.mark.parametrize("command", [run.COMMAND, exec.COMMAND])
def test_the_options_are_those_of_the_parser(command: run.Run | exec.Exec) -> None:
    """Which of them take a value is read from argparse, not kept in a second list."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    options = arguments.own_options(parser)
    assert options["--gpu-memory"] and options["--gpus"]
    assert options["--mig-grow"] is False and options["--help"] is False
