"""Our libraries before whatever an image preloads itself: in LD_PRELOAD and in /etc/ld.so.preload.

Both come from the image and are hostile: they are cut into tokens and only plain paths are kept. The result
is only ever read by the dynamic loader inside of the container; our launcher and hook are static.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gpuportion.paths import INSIDE, INSIDE_ALIAS, INSIDE_CUDA, INSIDE_NVML

OURS: Final = (INSIDE_CUDA, INSIDE_NVML, INSIDE_ALIAS)
MAX_BYTES: Final = 64 << 10
"""Of an image's own list; what lies behind is dropped."""
MAX_TOKEN: Final = 4096  # PATH_MAX
_SEPARATORS: Final = re.compile(rb"[\s:]+")
_COMMENT: Final = re.compile(rb"#[^\n]*")
_PLAIN: Final = re.compile(rb"[!-~]+")


def preload_text(image_preload: bytes) -> bytes:
    """The /etc/ld.so.preload to mount: ours, then the plain tokens of the image's own, one a line."""
    own = _SEPARATORS.split(_COMMENT.sub(b"", image_preload[:MAX_BYTES]))
    if len(image_preload) > MAX_BYTES:
        own.pop()  # may be cut within a path
    kept = [token.decode("ascii") for token in own if len(token) <= MAX_TOKEN and _PLAIN.fullmatch(token)]
    return "".join(f"{token}\n" for token in _merged(kept)).encode("ascii")


def preload_variable(own: str) -> str:
    """The value of LD_PRELOAD: ours, then the image's own (colons or spaces part them)."""
    return ":".join(_merged(own.replace(":", " ").split()))


def _merged(own: Iterable[str]) -> list[str]:
    """Ours first; an own token of our folder is dropped, so that merging twice changes nothing."""
    kept = [token for token in own if token and not token.startswith(INSIDE + "/")]
    return [*OURS, *dict.fromkeys(kept)]
