"""The records of our MIG instances on disk."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest

from gpuportion.allocator.mig.book import Book
from gpuportion.allocator.mig.records import Change, Phase, Record

NEW = Record(0, "boot", "GPU-1", 19, "1g.5gb", 6, 1, 4864 << 20, 1, token="t")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Keys are never used again, not even by the next daemon."""
    path = str(tmp_path / "state" / "mig.json")
    book = Book(path)
    one, two = book.add(NEW), book.add(NEW)
    assert (one.key, two.key) == (1, 2)
    made = book.apply(one, Change.MADE, gi=13, ci=0, uuid="MIG-a")
    assert made == dataclasses.replace(one, phase=Phase.READY, gi=13, ci=0, uuid="MIG-a")
    assert book.apply(two, Change.FAILED) is None
    again = Book(path)
    assert list(again) == [made] and again.add(NEW).key == 3


def test_a_record_changes_only_as_its_phase_can(tmp_path: Path) -> None:
    """And what is no more cannot change."""
    book = Book(str(tmp_path / "mig.json"))
    record = book.add(NEW)
    with pytest.raises(KeyError):
        book.apply(record, Change.GONE)
    book.apply(record, Change.FAILED)
    with pytest.raises(KeyError):
        book.apply(record, Change.MADE)


def test_an_intent_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    """What has happened counts nevertheless, and is written with the next change."""
    folder = tmp_path / "state"
    book = Book(str(folder / "mig.json"))
    record = book.add(NEW)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(OSError):
        book.add(NEW)
    made = book.apply(record, Change.MADE, gi=13)
    assert made is not None and list(book) == [made]
    folder.unlink()
    freed = book.apply(made, Change.FREED, token="")
    assert list(Book(str(folder / "mig.json"))) == [freed]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"next": 1}', '{"next": 1, "records": [{"key": 1}]}'])
def test_a_file_that_is_none_is_put_aside(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And said; nothing is ours then."""
    path = tmp_path / "mig.json"
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert list(Book(str(path))) == []
    assert (tmp_path / "mig.json.broken").read_text() == content and "left to themselves" in caplog.text
