"""A small transformer that trains, and that makes a token after another, a batch of each at a time, on request.

    train.py [elementwise]    elementwise: without matrix products, for a simulated GPU, which has no cuBLAS

Lines on standard input: `train N`, `tokens N`, `graphed N`. Answers with the seconds that a step took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

WIDTH: Final = 512
LAYERS: Final = 4
LENGTH: Final = 128
BATCH: Final = 8


def model() -> Any:
    if "elementwise" in sys.argv:
        layers = [nn.Sequential(nn.LayerNorm(WIDTH), nn.Tanh()) for _ in range(LAYERS)]
        return nn.Sequential(*layers).cuda()
    layer = nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).cuda()


class Steps:
    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.batch = torch.randn(BATCH, LENGTH, WIDTH, device="cuda")
        self.token = torch.randn(1, 1, WIDTH, device="cuda")
        self.graph: Any = None

    def train(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

    def tokens(self) -> None:
        with torch.no_grad():
            self.token.copy_(self.model(self.token))

    def graphed(self) -> None:
        if self.graph is None:
            self.graph = self._captured()
        self.graph.replay()

    def _captured(self) -> Any:
        self.tokens()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.tokens()
        return graph


def timed(step: Callable[[], None], count: int) -> float:
    """Seconds a step."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / count


def main() -> None:
    steps = Steps()
    ways = {"train": steps.train, "tokens": steps.tokens, "graphed": steps.graphed}
    print(json.dumps({"ready": torch.__version__}), flush=True)
    for line in sys.stdin:
        way, count = line.split()
        print(json.dumps({"seconds": timed(ways[way], int(count))}), flush=True)


if __name__ == "__main__":
    main()
