"""Which grants' pages a process lives with, as the kernel's list of its mounts tells it."""

from __future__ import annotations

import pytest

from gpuportion.allocator import mountinfo

TOKEN = "0123456789abcdef" * 2
HOST = "22 1 0:20 / / rw - ext4 /dev/vda1 rw\n23 22 0:21 / /run rw,nosuid - tmpfs tmpfs rw\n"
PLACE = ("0:21", "/gpuportion/grants")


def line(root: str, point: str, device: str = "0:21") -> str:
    return f"40 30 {device} {root} {point} ro,nosuid - tmpfs tmpfs rw\n"


def test_a_folder_is_told_as_its_file_system_has_it() -> None:
    """The innermost mount counts, and of two in one place the later."""
    assert mountinfo.where(HOST, "/run/gpuportion/grants") == PLACE
    over = HOST + "24 23 0:22 /below /run rw - tmpfs tmpfs rw\n"
    assert mountinfo.where(over, "/run/gpuportion/grants") == ("0:22", "/below/gpuportion/grants")


def test_a_mount_from_a_grants_folder_tells_its_token() -> None:
    """What lies elsewhere, or is called otherwise, tells none."""
    of_policy = line(f"/gpuportion/grants/{TOKEN}/policy", "/.gpuportion/policy")
    assert list(mountinfo.tokens_of(HOST + of_policy, PLACE)) == [TOKEN]
    others = (
        line(f"/gpuportion/grants/{TOKEN}/policy", "/a", "0:99"),
        line(f"/other/{TOKEN}/policy", "/a"),
        line("/gpuportion/grants/x/policy", "/a"),
    )
    assert list(mountinfo.tokens_of("".join(others), PLACE)) == []


@pytest.mark.parametrize("space", ["\r", "\v", "\f", "\x1c\x1c", "\x85", "\xa0", "\u2028\u2028"])
def test_a_mount_may_have_any_name(space: str) -> None:
    """A container can mount at a folder of any name: it neither ends the line nor adds a field."""
    strange = line("/", f"/a{space}{space}b 40".replace(" ", "\\040"))
    after = line(f"/gpuportion/grants/{TOKEN}/policy", "/.gpuportion/policy")
    assert list(mountinfo.tokens_of(strange + after, PLACE)) == [TOKEN]
    forged = line("/", f"/a{space}1{space}2{space}0:21{space}/gpuportion/grants/{TOKEN}/policy{space}/")
    assert list(mountinfo.tokens_of(forged, PLACE)) == []
