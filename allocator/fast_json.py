"""JSON where a grant waits for it: a container's config.json, read and written, and what is kept of the grant.

Of numbers it takes what OCI has: integers of 64 bits; a longer one would come out as a fraction, which no runtime takes
for what it was. Halves of characters and infinities are refused. Knows nothing of what the values mean.
"""

from __future__ import annotations

from typing import Any

import orjson


def loads(text: bytes | str) -> Any:
    """ValueError, with line and column: it is no JSON, or nested more than a thousand deep."""
    return orjson.loads(text)


def dumps(value: Any) -> bytes:
    """UTF-8; dataclasses as objects of their fields. TypeError for what JSON has not."""
    return orjson.dumps(value)
