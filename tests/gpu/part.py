"""One part of the suite in a process of its own: what it says goes to standard output (claims.py).

python -m tests.gpu.part NAME
"""

from __future__ import annotations

import importlib
import os
import sys

from tests.gpu.claims import Report
from tests.gpu.setting import handed


def main() -> None:
    """Runs it. Its own output is kept apart from what libraries write to file descriptor 1."""
    name = sys.argv[1]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    importlib.import_module(f"tests.gpu.parts.{name}").run(handed(), Report(name, out))


if __name__ == "__main__":
    main()
