"""A spec is kept between its reading and its edit, and no longer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuportion.allocator.cdi_files import CdiFiles
from gpuportion.allocator.editor.editing import Editing
from gpuportion.errors import GpuportionError

CONFIG = json.dumps({"process": {"env": ["GPU_MEMORY_LIMIT=1G"]}}).encode()


@pytest.fixture
def editing(tmp_path: Path) -> Editing:
    return Editing(CdiFiles([str(tmp_path)], made=f"{tmp_path}/none"))


def test_a_spec_that_was_dropped_is_gone(editing: Editing) -> None:
    """A container that is refused costs the process nothing."""
    editing.operations["read"](1, {"id": "c1"}, CONFIG)
    editing.operations["drop"](1, {}, b"")
    editing.operations["drop"](1, {}, b"")
    assert not editing._kept


def test_a_spec_that_was_edited_is_gone(editing: Editing) -> None:
    """Also where that failed."""
    editing.operations["read"](1, {"id": "c1"}, CONFIG)
    with pytest.raises(GpuportionError):
        editing.operations["edit"](1, {"cards": [], "folder": "/f", "token": "t"}, b"")
    assert not editing._kept


def test_a_spec_that_asks_for_nonsense_is_not_kept(editing: Editing) -> None:
    """Nobody comes back for it."""
    with pytest.raises(GpuportionError):
        editing.operations["read"](1, {"id": "c1"}, b'{"process": {"env": ["GPU_MEMORY_LIMIT=x"]}}')
    assert not editing._kept
