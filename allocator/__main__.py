"""`gpuportiond`, also `python -m gpuportion.allocator`."""

from __future__ import annotations

import sys

from gpuportion.allocator.daemon import main

if __name__ == "__main__":
    sys.exit(main())
