"""The parts of a request: whole, or GP304 with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gpuportion import wire
from gpuportion.allocator import fields
from gpuportion.errors import GpuportionError


def refused(call: Callable[[], Any], what: str) -> None:
    with pytest.raises(GpuportionError, match=re.escape(what)) as raised:
        call()
    assert raised.value.code == "GP304"


def test_a_text_is_a_text_without_zero_bytes() -> None:
    """It would be cut where C ends a string."""
    assert fields.text(wire.Message({"id": "c1"}), "id") == "c1"
    assert fields.text(wire.Message({"id": ""}), "id") == ""
    heads: list[dict[str, Any]] = [{}, {"id": 3}, {"id": None}, {"id": "a\0b"}]
    for head in heads:
        refused(partial(fields.text, wire.Message(head), "id"), "id is no text")


def test_a_list_of_texts_has_texts_alone() -> None:
    """Each says something: an empty one, as of a GPU, would mean none or all."""
    for given in ([], ["GPU-1"], ["GPU-1", "GPU-2"]):
        assert fields.texts(wire.Message({"gpus": given, "other": [3]}), "gpus") == given
    wrong: list[Any] = [None, "GPU-1", {}, [1], ["a", 1], [""], ["a", ""]]
    for value in wrong:
        refused(partial(fields.texts, wire.Message({"gpus": value}), "gpus"), "gpus is no list of texts")
    refused(partial(fields.texts, wire.Message({}), "gpus"), "gpus is no list of texts")


def test_a_request_of_exec_is_an_object_of_texts() -> None:
    """One value of another kind spoils it: it may be the one that limits."""
    assert fields.keys({"GPU_MEMORY_LIMIT": "4G", "GPU_COUNT": "2"}) == {
        "GPU_MEMORY_LIMIT": "4G",
        "GPU_COUNT": "2",
    }
    wrong: list[Any] = [None, [], "A=2", {"A": 2}, {"A": "4G", "B": None}]
    for value in wrong:
        refused(partial(fields.keys, value), "no object of texts")


@pytest.mark.parametrize(("size", "parts"), [(0, (b"{}/a", b"")), (2, (b"{}", b"/a")), (4, (b"", b"{}/a"))])
def test_the_body_is_cut_where_the_head_says(size: int, parts: tuple[bytes, bytes]) -> None:
    """config.json, then the image's preload."""
    assert fields.parts(wire.Message({"preload_bytes": size}, b"{}/a")) == parts


@pytest.mark.parametrize("size", [-1, 5, "2", None])
def test_a_cut_outside_of_the_body_is_refused(size: object) -> None:
    """Nothing is guessed."""
    refused(lambda: fields.parts(wire.Message({"preload_bytes": size}, b"{}/a")), "no part of the body")


def test_a_spec_is_a_json_object() -> None:
    """Broken, nested too deeply, or of another kind: refused, with the place where it is broken."""
    assert fields.spec(b'{"process": {}}') == {"process": {}}
    refused(
        lambda: fields.spec(b'{"a": }'),
        "is broken: unexpected character, expected a JSON value: line 1 column 7",
    )
    refused(lambda: fields.spec(b"[" * 100_000), "is broken")
    refused(lambda: fields.spec(b"\xff"), "is broken")
    refused(lambda: fields.spec(b"[]"), "is no object")


def test_an_environment_is_a_list_of_texts_or_absent() -> None:
    """An absent one asks for nothing; one that cannot be read might."""
    assert fields.environment({"process": {"env": ["A=1", "B"]}}) == ["A=1", "B"]
    absent: list[Any] = [{}, {"process": None}, {"process": []}, {"process": {}}, {"process": {"env": None}}]
    for spec in absent:
        assert fields.environment(spec) == []
    for env in ("A=1", {"A": "1"}, ["A=1", 2], 0):
        refused(partial(fields.environment, {"process": {"env": env}}), "no list of texts")


def test_annotations_are_an_object_of_texts_or_absent() -> None:
    """As the environment."""
    assert fields.annotations_of({"annotations": {"a": "1", "b": ""}}) == {"a": "1", "b": ""}
    absent: list[dict[str, Any]] = [{}, {"annotations": None}, {"annotations": {}}]
    for spec in absent:
        assert fields.annotations_of(spec) == {}
    for found in (["a"], {"a": "1", "b": 2}, "a=1"):
        refused(partial(fields.annotations_of, {"annotations": found}), "no object of texts")


def test_what_the_launcher_found_in_an_image_is_a_list_of_names_and_paths() -> None:
    """An older launcher does not say; whatever else is there spoils all of it."""
    found = [{"name": "libcuda.so.1", "path": "/a/libcuda.so.1"}, {"name": "x", "path": "/b", "more": 1}]
    got = fields.image_drivers({"image_drivers": found})
    assert [(one.name, one.path) for one in got] == [("libcuda.so.1", "/a/libcuda.so.1"), ("x", "/b")]
    assert fields.image_drivers({}) == ()
    assert fields.image_mounts({"image_mounts": found}) == {
        "libcuda.so.1": "/a/libcuda.so.1",
        "x": "/b",
    }
    assert fields.image_mounts({}) == {}
    wrong: list[Any] = [
        None,
        {},
        "x",
        [*found, 3],
        [{"name": "x"}],
        [{"path": "/b"}],
        [{"name": "x", "path": 1}],
    ]
    for value in wrong:
        refused(
            partial(fields.image_drivers, {"image_drivers": value}),
            "image_drivers is no list of names and paths",
        )
        refused(
            partial(fields.image_mounts, {"image_mounts": value}),
            "image_mounts is no list of names and paths",
        )


def test_mounts_are_those_that_are_objects() -> None:
    """The low-level runtime says what is wrong with the others."""
    assert fields.mounts_of({"mounts": [{"destination": "/a"}, 3, {}]}) == [{"destination": "/a"}, {}]
    absent: list[dict[str, Any]] = [{}, {"mounts": None}, {"mounts": {"destination": "/a"}}, {"mounts": 3}]
    for spec in absent:
        assert fields.mounts_of(spec) == []
