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


@pytest.mark.parametrize(
    ("mounts", "folder", "place"),
    [
        ("", "/run/x", ("", "")),
        (line("/", "/srv"), "/run/x", ("", "")),
        (line("/", "/ru") + line("/", "/run/xy"), "/run/x", ("", "")),
        (line("/", "/run/x"), "/run/x", ("0:21", "")),
        (line("/", "/runX") + line("/", "/run\x85x"), "/run/x", ("", "")),
        (line("/aX", "/run"), "/run/x", ("0:21", "/aX/x")),
        (line("/a", "/run/x"), "/run/x", ("0:21", "/a")),
        (line("/", "/", "8:1") + line("/", "/run"), "/run/x", ("0:21", "/x")),
        (line("/", "/run") + line("/a/", "/", "8:1"), "/run/x", ("0:21", "/x")),
        (line("/a/", "/", "8:1"), "/run/x", ("8:1", "/a/run/x")),
        (line("/my\\040root", "/my\\040run\\134"), "/my run\\/x", ("0:21", "/my root/x")),
    ],
)
def test_a_folder_lies_on_one_file_system(mounts: str, folder: str, place: tuple[str, str]) -> None:
    """Whatever is mounted beside it, in whichever order; spaces and backslashes are written in octal."""
    assert mountinfo.where(mounts, folder) == place


@pytest.mark.parametrize(
    ("root", "device", "place", "tokens"),
    [
        (f"/gpuportion/grants/{TOKEN}/policy", "0:21", PLACE, [TOKEN]),
        (f"/gpuportion/grants/{TOKEN}", "0:21", PLACE, [TOKEN]),
        (f"/{TOKEN}/policy", "0:21", ("0:21", ""), [TOKEN]),
        (f"/a\\040b/{TOKEN}/policy", "0:21", ("0:21", "/a b"), [TOKEN]),
        (f"/gpuportion/grants/{TOKEN}/policy", "0:99", PLACE, []),
        (f"/other/{TOKEN}/policy", "0:21", PLACE, []),
        (f"/gpuportion/grants2/{TOKEN}/policy", "0:21", PLACE, []),
        ("/gpuportion/grants/x/policy", "0:21", PLACE, []),
        (f"/gpuportion/grants/{TOKEN}0/policy", "0:21", PLACE, []),
        (f"/gpuportion/grants/x/{TOKEN}", "0:21", PLACE, []),
    ],
)
def test_a_mount_from_a_grants_folder_tells_its_token(
    root: str, device: str, place: tuple[str, str], tokens: list[str]
) -> None:
    """What lies elsewhere, or is called otherwise, tells none."""
    assert list(mountinfo.tokens_of(HOST + line(root, "/.gpuportion/policy", device), place)) == tokens


@pytest.mark.parametrize("space", ["\r", "\v", "\f", "\x1c\x1c", "\x85", "\xa0", "\u2028\u2028"])
def test_a_mount_may_have_any_name(space: str) -> None:
    """A container can mount at a folder of any name: it neither ends the line nor adds a field."""
    strange = line("/", f"/a{space}{space}b 40".replace(" ", "\\040"))
    after = line(f"/gpuportion/grants/{TOKEN}/policy", "/.gpuportion/policy")
    assert list(mountinfo.tokens_of(strange + after, PLACE)) == [TOKEN]
    forged = line("/", f"/a{space}1{space}2{space}0:21{space}/gpuportion/grants/{TOKEN}/policy{space}/")
    assert list(mountinfo.tokens_of(forged, PLACE)) == []
