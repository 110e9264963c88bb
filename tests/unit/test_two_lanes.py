"""How `make test` parts the tests: none is left out, and none runs twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tools import two_lanes

ROOT = Path(__file__).parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py"))
OF_DAEMON = [file for file in FILES if file.startswith(f"{two_lanes.DAEMON}/")]


def taken(job: two_lanes.Words) -> list[str]:
    """As pytest does."""
    left_out = [f"{word.partition('=')[2]}/" for word in job if word.startswith("--ignore=")]
    paths = [word for word in job if not word.startswith("--")]
    return [
        file
        for file in FILES
        if any(file == path or file.startswith(f"{path}/") for path in paths)
        and not any(file.startswith(folder) for folder in left_out)
    ]


def test_each_file_of_tests_is_in_one_job() -> None:
    """Whatever comes to tests later."""
    jobs = [*two_lanes.first_jobs(), *two_lanes.parts(OF_DAEMON)]
    assert Counter(file for job in jobs for file in taken(job)) == Counter(FILES)


def test_what_looks_at_all_engines_runs_with_the_engines() -> None:
    """Its files are there, and beside them in no other part."""
    assert set(two_lanes.WITH_ENGINES) <= set(OF_DAEMON)
    assert not set(two_lanes.WITH_ENGINES) & {file for part in two_lanes.parts(OF_DAEMON) for file in part}


@pytest.mark.parametrize(
    ("statuses", "status"),
    [([0, 0], 0), ([0, 5, 0], 0), ([5, 5], 5), ([0, 1, 5], 1), ([5, 2], 2), ([0, -9], -9)],
)
def test_the_status_is_the_first_bad_one(statuses: list[int], status: int) -> None:
    """No test in one part, by `-k`, is nothing bad; none in all is."""
    assert two_lanes.together(statuses) == status
