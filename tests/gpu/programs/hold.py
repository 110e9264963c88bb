"""A tenant: takes memory, marks it, and says on request whether the marks are still there.

hold.py MARK PIECE          takes pieces until it is refused, then waits for lines:
    check       are all of its blocks as it marked them?
    again       frees a block and takes it again
hold.py MARK PIECE BYTES    takes so much, no more
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.gpu.programs.driver_api import Cuda, CudaError

END: Final = 4096
"""Bytes at each end of a block that are marked."""


class Tenant:
    def __init__(self, mark: int, piece: int) -> None:
        self.cuda = Cuda().begin()
        self.mark, self.piece = mark, piece
        self.held: list[int] = []

    def take(self, most: int) -> int:
        """Pieces until `most` bytes are had or one is refused; the refusal, or 0."""
        try:
            while (len(self.held) + 1) * self.piece <= most:
                self.held.append(self.cuda.get("cuMemAlloc_v2", self.piece))
                for offset in (0, self.piece - END):
                    self.cuda.do("cuMemsetD8_v2", self.held[-1] + offset, self.mark, END)
        except CudaError as refusal:
            return refusal.result
        return 0

    def check(self) -> bool:
        """The ends of every block."""
        back = ctypes.create_string_buffer(END)
        for at in self.held:
            for offset in (0, self.piece - END):
                self.cuda.do("cuMemcpyDtoH_v2", back, at + offset, END)
                if back.raw != bytes([self.mark]) * END:
                    return False
        return True

    def again(self) -> int:
        """Frees the last block and takes as much again."""
        self.cuda.do("cuMemFree_v2", self.held.pop())
        return self.take((len(self.held) + 1) * self.piece)


def main() -> None:
    tenant = Tenant(int(sys.argv[1]), int(sys.argv[2]))
    refused = tenant.take(int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 62)
    free, total = tenant.cuda.info()
    say(had=len(tenant.held) * tenant.piece, refused=refused, free=free, total=total)
    for line in sys.stdin:
        if line.strip() == "check":
            say(intact=tenant.check(), free=tenant.cuda.info()[0])
        elif line.strip() == "again":
            say(refused=tenant.again(), free=tenant.cuda.info()[0])


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
