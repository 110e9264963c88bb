"""Frames on a stream: whole however they are cut, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion import wire
from gpuportion.allocator.editor.frames import Frames, Told

TOLD = st.builds(Told, st.integers(0, 2), st.binary(max_size=40), st.binary(max_size=200))


@given(st.lists(TOLD, max_size=5), st.data())
def test_frames_come_whole_and_in_order(told: list[Told], data: st.DataObject) -> None:
    """Wherever the stream is cut."""
    stream = b"".join(wire.frame(*each) for each in told)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames = Frames()
    got: list[Told] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += frames.take(stream[begin:end])
    assert got == told


def test_what_is_no_frame_is_refused() -> None:
    """A process that says something else is not the editor."""
    with pytest.raises(wire.ProtocolError):
        list(Frames().take(b"hello, this is no frame"))
