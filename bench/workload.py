"""Jobs for `bench/placement.py`: made by a seeded generator, or read from a trace.

The generator is shaped like public traces of shared GPU clusters, as their papers describe them:

    what is asked   a third of the jobs ask for less than half a GPU (0.05 to 0.45, small ones more often), a sixth for
                    0.5 to 0.9 of one, 0.37 for one whole GPU, the rest for 2, 4 or 8 (each half as often as the last)
    how long        lognormal: half of the jobs end within 10 minutes, one in a hundred takes more than 17 hours;
                    cut off at two days. Larger jobs run longer: twice as long for each doubling of GPUs
    when            a Poisson process, at the rate at which all jobs together ask for `load` of what there is

A trace is a CSV of the `openb` form: num_gpu, gpu_milli (thousandths of a GPU for a job of one GPU), creation_time,
deletion_time in seconds. Jobs that ask for no GPU, or for more than a node has, are left out and counted. Of the rest
as many are kept, by chance, as ask for `load` together; with less than that all are.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHAPES: Final = (
    # (how often, GPUs, least part, largest part)
    (1 / 3, 1, 0.05, 0.45),
    (1 / 6, 1, 0.50, 0.90),
    (0.37, 1, 1.0, 1.0),
    (0.13 * 4 / 7, 2, 1.0, 1.0),
    (0.13 * 2 / 7, 4, 1.0, 1.0),
    (0.13 * 1 / 7, 8, 1.0, 1.0),
)
MEDIAN: Final = 600.0
"""Seconds that the median job of one GPU runs."""
TAIL: Final = 2.0
"""The sigma of the lognormal: exp(2.33 * 2) = 105 medians at the 99th percentile."""
LONGEST: Final = 2 * 86_400.0


@dataclass(frozen=True, slots=True)
class Job:
    """`part` of each of `gpus` GPUs, from `start` to `end` in seconds."""

    start: float
    end: float
    gpus: int
    part: float

    @property
    def work(self) -> float:
        """GPU seconds."""
        return self.gpus * self.part * (self.end - self.start)


def generated(count: int, capacity: int, load: float, seed: int) -> list[Job]:
    """`count` jobs for `capacity` GPUs."""
    chance = random.Random(seed)
    shapes = chance.choices(SHAPES, weights=[shape[0] for shape in SHAPES], k=count)
    jobs = [_job(chance, gpus, least, most) for _, gpus, least, most in shapes]
    span = sum(job.work for job in jobs) / (capacity * load)
    starts = sorted(chance.uniform(0, span) for _ in jobs)
    return [Job(start, start + job.end, job.gpus, job.part) for start, job in zip(starts, jobs, strict=True)]


def _job(chance: random.Random, gpus: int, least: float, most: float) -> Job:
    lasts = min(LONGEST, MEDIAN * gpus * math.exp(chance.gauss(0, TAIL)))
    skewed = chance.random() ** 2  # small parts more often than large ones
    return Job(0.0, lasts, gpus, round(least + (most - least) * skewed, 2))


def traced(path: Path, widest: int, capacity: int, load: float, seed: int) -> tuple[list[Job], int]:
    """The jobs of a trace, and how many were left out because they fit no node or ask for no GPU."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = max((_seconds(row["creation_time"]) for row in rows), default=0.0)
    found = [job for row in rows if (job := _traced(row, last)) is not None and job.gpus <= widest]
    return _thinned(found, capacity, load, seed), len(rows) - len(found)


def _traced(row: dict[str, str], last: float) -> Job | None:
    gpus, part = int(row["num_gpu"] or 0), int(row["gpu_milli"] or 0) / 1000
    start = _seconds(row["creation_time"])
    end = _seconds(row["deletion_time"]) or last
    return Job(start, end, gpus, part) if gpus and 0 < part <= 1 and end > start else None


def _seconds(text: str) -> float:
    return float(text) if text else 0.0


def _thinned(jobs: Sequence[Job], capacity: int, load: float, seed: int) -> list[Job]:
    if not jobs:
        return []
    asked = sum(job.work for job in jobs)
    span = max(job.end for job in jobs) - min(job.start for job in jobs)
    keep, chance = load * capacity * span / asked, random.Random(seed)
    return sorted((job for job in jobs if chance.random() < keep), key=lambda job: job.start)


def under_half(jobs: Iterable[Job]) -> float:
    """The part of the jobs that ask for less than half a GPU."""
    jobs = list(jobs)
    return sum(job.gpus == 1 and job.part < 0.5 for job in jobs) / len(jobs)
