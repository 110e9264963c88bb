"""When the daemon looks at a grant again."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Iterator

import pytest

from gpuportion.allocator.hints import FIRST, LAST, MOST, Hints


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def test_times_come_in_order_and_once(selector: selectors.BaseSelector) -> None:
    """The earliest of several for one grant counts."""
    hints = Hints(selector)
    for token, time in (("late", 9.0), ("early", 3.0), ("early", 5.0), ("early", 2.0)):
        hints.at(token, time)
    assert hints.timeout(0.0) == 2.0
    assert hints.due(1.9) == []
    assert hints.due(6.0) == ["early"]
    assert hints.timeout(6.0) == 3.0
    assert hints.due(10.0) == ["late"]
    assert hints.timeout(10.0) is None


def test_a_look_that_finds_somebody_is_repeated_ever_more_slowly(selector: selectors.BaseSelector) -> None:
    """At first within milliseconds, in the end once a second; a new hint begins anew."""
    hints = Hints(selector)
    now, waits = 0.0, []
    for _ in range(12):
        hints.later("t", now)
        wait = hints.timeout(now)
        assert wait is not None
        waits.append(wait)
        now += wait
        assert hints.due(now) == ["t"]
    rounded = [round(wait, 6) for wait in waits]
    assert rounded == sorted(rounded) and (rounded[0], rounded[-1]) == (FIRST, LAST)
    hints.soon("t", now)
    assert hints.due(now) == ["t"]
    hints.later("t", now)
    assert hints.timeout(now) == pytest.approx(FIRST)


def test_a_forgotten_grant_is_never_due(selector: selectors.BaseSelector) -> None:
    """Its times are void, its descriptor closed."""
    hints = Hints(selector)
    pidfd = os.pidfd_open(os.getpid())
    hints.watch("t", pidfd)
    hints.at("t", 1.0)
    assert hints.is_alive("t")
    hints.forget("t")
    assert hints.due(2.0) == [] and hints.timeout(0.0) is None and not hints.is_alive("t")
    with pytest.raises(OSError):
        os.fstat(pidfd)


def test_the_end_of_a_watched_process_is_heard(selector: selectors.BaseSelector) -> None:
    """The selector says that there is somebody; it is known to be dead even before that was read."""
    hints = Hints(selector)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        hints.watch("t", os.pidfd_open(child.pid))
        assert selector.select(0) == [] and hints.is_alive("t")
        child.communicate()
    ((key, _),) = selector.select(10)
    assert key.data is hints and not hints.is_alive("t")
    hints.take(5.0)
    assert hints.due(5.0) == ["t"] and selector.select(0) == []
    hints.close()


def test_of_many_that_end_at_once_each_is_heard(selector: selectors.BaseSelector) -> None:
    """Some in one round, the others in the next ones; who lives is in none."""
    hints = Hints(selector)
    children = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(MOST + 2)]
    for number, child in enumerate(children):
        hints.watch(f"{number}", os.pidfd_open(child.pid))
    for child in children[1:]:
        child.communicate()
    heard = []
    while selector.select(0):
        hints.take(5.0)
        heard.append(hints.due(5.0))
    assert len(heard) == 2
    assert sorted(heard[0] + heard[1]) == sorted(map(str, range(1, MOST + 2))) and hints.is_alive("0")
    children[0].communicate()
    hints.close()


def test_watching_another_process_closes_the_first(selector: selectors.BaseSelector) -> None:
    """The creator's gives way to the container's."""
    hints = Hints(selector)
    first, second = os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())
    hints.watch("t", first)
    hints.watch("t", second)
    with pytest.raises(OSError):
        os.fstat(first)
    hints.close()
    with pytest.raises(OSError):
        os.fstat(second)
