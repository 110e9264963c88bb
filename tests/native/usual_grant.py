"""The grant of most tests of libcap_mem (the fixtures `grant` and `client`): half of the first GPU's on the second."""

from __future__ import annotations

from typing import Final

from tests.native.capped import MIB

LIMIT: Final = 1_000_000_000
CONTEXT: Final = 224 * MIB
"""What simgpu's context costs unless it is told otherwise."""
