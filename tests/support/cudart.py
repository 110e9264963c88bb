"""The stand-in for NVIDIA's CUDA runtime (tests/cudart), built in the ABI of one of its versions.

Knows nothing of what runs on it. NVIDIA's library gives the names and the headers; it is neither changed nor run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support import native

SOURCES: Final = Path(__file__).parents[1] / "cudart"
CLIENT: Final = "cudart_client"


def stand_in(library: Path, where: Path) -> Path:
    """The library to put in the place of NVIDIA's `library`, whose headers lie in ../include; CLIENT lies beside it."""
    headers = library.parent.parent / "include"
    native.build(SOURCES, where, "all", f"-DHEADERS={headers}", f"-DLIBRARY={library}")
    return where / library.name
