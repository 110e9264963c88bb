"""The lock of libcap_mem/src/lock.c as a machine of few states, all of which are gone through.

Threads take the lock and let go of it some times. Between any two accesses to the word any other thread may go on. The
store of an unlock may reach the others later than the look for waiters that follows it, as processors allow; no later
than the thread's next change of the word or system call, or than a waiter's first millisecond has passed. Whether a
lock's turn is over, and whom a wake finds, is left open: every answer is tried.

Knows nothing of C; `tests/native/test_lock.py` says what must be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum, auto


@dataclass(frozen=True, order=True, slots=True)
class Word:
    held: bool = False
    promised: bool = False
    waking: bool = False
    waiters: int = 0


class At(IntEnum):
    """What a thread does next."""

    BEGIN = auto()
    JOIN = auto()
    LOOK = auto()
    ACT = auto()
    ASLEEP = auto()
    INSIDE = auto()
    LET_GO = auto()
    SEE_WHO_WAITS = auto()
    CHOOSE_WHOM = auto()
    WAKE = auto()
    DONE = auto()


@dataclass(frozen=True, order=True, slots=True)
class Thread:
    left: int
    at: At = At.BEGIN
    seen: Word = Word()
    mine: bool = False
    """The lock is promised to it."""
    fresh: bool = True
    """Its first millisecond has not passed: sleeps end by themselves."""
    stored: bool = False
    """Its unlock has not reached the others."""


@dataclass(frozen=True, slots=True)
class World:
    word: Word
    threads: tuple[Thread, ...]

    def having(self, who: int, thread: Thread, word: Word | None = None) -> World:
        threads = (*self.threads[:who], thread, *self.threads[who + 1 :])
        return World(self.word if word is None else word, threads)


@dataclass(frozen=True, slots=True)
class Rules:
    """The lock as it is; a fault is a rule turned off."""

    unlock_wakes: bool = True
    fresh_sleeps_are_short: bool = True
    sleeper_calms: bool = True
    """Nobody sleeps while `waking` is set: unlocks would wake nobody."""
    promised_wakes_the_promised: bool = True
    barrier_before_the_choice: bool = True
    taken_only_when_free: bool = True


class StuckError(Exception):
    """All who are left sleep for ever."""


class BrokenError(Exception):
    """Two have the lock, or it is left in another state than it began in."""


@dataclass
class Explorer:
    threads: int
    turns: int
    rules: Rules = field(default_factory=Rules)

    def run(self) -> int:
        """Goes through all; how many states there are."""
        first = World(Word(), (Thread(self.turns),) * self.threads)
        known, ahead = {first}, [first]
        while ahead:
            world = ahead.pop()
            self.check(world)
            nexts = {self.canonical(each) for each in self.after(world)}
            if not nexts and any(thread.at is not At.DONE for thread in world.threads):
                raise StuckError(world)
            fresh = nexts - known
            known |= fresh
            ahead.extend(fresh)
        return len(known)

    @staticmethod
    def canonical(world: World) -> World:
        """Threads are alike: their order means nothing."""
        return World(world.word, tuple(sorted(world.threads)))

    def check(self, world: World) -> None:
        if sum(thread.at in (At.INSIDE, At.LET_GO) for thread in world.threads) > 1:
            raise BrokenError(world)
        if (
            all(thread.at is At.DONE and not thread.stored for thread in world.threads)
            and world.word != Word()
        ):
            raise BrokenError(world)

    def after(self, world: World) -> Iterator[World]:
        for who, thread in enumerate(world.threads):
            if thread.stored:
                yield self.reached(world, who)
            yield from self.step(world, who, thread)

    @staticmethod
    def reached(world: World, who: int) -> World:
        """The store of an unlock reaches the others."""
        thread = world.threads[who]
        if not thread.stored:
            return world
        return world.having(who, replace(thread, stored=False), replace(world.word, held=False))

    def all_reached(self, world: World) -> World:
        for who in range(len(world.threads)):
            world = self.reached(world, who)
        return world

    def step(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        if thread.at in STEPS:
            yield from STEPS[thread.at](self, world, who, thread)

    def begin(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        """The short way, or a few looks: once here, whether or not it could be had."""
        world = self.reached(world, who)
        thread = world.threads[who]
        yield world.having(who, replace(thread, at=At.JOIN))
        if not world.word.held and not world.word.promised:
            yield world.having(who, replace(thread, at=At.INSIDE), replace(world.word, held=True))

    def join(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        joined = replace(world.word, waiters=world.word.waiters + 1)
        yield world.having(who, replace(thread, at=At.LOOK, fresh=True, mine=False), joined)

    def look(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        yield world.having(who, replace(thread, at=At.ACT, seen=world.word))

    def act(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        seen, again = thread.seen, replace(thread, at=At.LOOK, seen=Word())
        unchanged = world.word == seen
        free = not seen.held or not self.rules.taken_only_when_free
        if free and (thread.mine or not seen.promised):
            taken = replace(seen, held=True, waking=False, waiters=seen.waiters - 1)
            taken = replace(taken, promised=taken.promised and not thread.mine)
            inside = replace(again, at=At.INSIDE, mine=False)
            yield world.having(who, inside, taken) if unchanged else world.having(who, again)
            return
        if not seen.promised:  # its turn is over
            promised = replace(again, mine=unchanged, fresh=True)
            word = replace(seen, promised=True, waking=False) if unchanged else world.word
            yield world.having(who, promised, word)
        if seen.waking and self.rules.sleeper_calms:
            yield world.having(who, again, replace(seen, waking=False) if unchanged else world.word)
        else:
            yield world.having(who, replace(again, at=At.ASLEEP) if unchanged else again)

    def asleep(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        """By itself it wakes in its first millisecond; or that passes, and every store has reached everybody."""
        if thread.fresh and self.rules.fresh_sleeps_are_short:
            yield self.all_reached(world).having(who, replace(thread, at=At.LOOK, fresh=False))
        elif thread.fresh:
            yield self.all_reached(world).having(who, replace(thread, fresh=False))

    def inside(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        yield world.having(who, replace(thread, at=At.LET_GO))

    def let_go(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        yield world.having(who, replace(thread, at=At.SEE_WHO_WAITS, stored=True))

    def see_who_waits(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        waits = world.word.waiters and self.rules.unlock_wakes
        yield (
            self.ended(world, who, thread)
            if not waits
            else world.having(who, replace(thread, at=At.CHOOSE_WHOM))
        )

    def choose_whom(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        """Behind a barrier; without one, its own store it sees, whether or not others do."""
        if self.rules.barrier_before_the_choice:
            world = self.reached(world, who)
            thread = world.threads[who]
        seen = replace(world.word, held=world.word.held and not thread.stored)
        if seen.promised and self.rules.promised_wakes_the_promised:
            yield world.having(who, replace(thread, at=At.WAKE, mine=True))
        elif not seen.held and not seen.waking and seen.waiters:
            yield world.having(who, replace(thread, at=At.WAKE, seen=seen, mine=False))
        else:
            yield self.ended(world, who, thread)

    def wake(self, world: World, who: int, thread: Thread) -> Iterator[World]:
        """A change of the word or a system call: its store has reached everybody."""
        world = self.reached(world, who)
        thread = world.threads[who]
        if not thread.mine:
            if world.word != thread.seen:
                yield self.ended(world, who, thread)
                return
            world = world.having(who, thread, replace(thread.seen, waking=True))
        found = [
            other
            for other, sleeper in enumerate(world.threads)
            if sleeper.at is At.ASLEEP and sleeper.mine == thread.mine
        ]
        for other in found:
            woken = world.having(other, replace(world.threads[other], at=At.LOOK))
            yield self.ended(woken, who, thread)
        if not found:
            yield self.ended(world, who, thread)

    @staticmethod
    def ended(world: World, who: int, thread: Thread) -> World:
        at = At.BEGIN if thread.left > 1 else At.DONE
        kept = world.threads[who].stored
        return world.having(who, Thread(thread.left - 1, at, stored=kept))


STEPS = {
    At.BEGIN: Explorer.begin,
    At.JOIN: Explorer.join,
    At.LOOK: Explorer.look,
    At.ACT: Explorer.act,
    At.ASLEEP: Explorer.asleep,
    At.INSIDE: Explorer.inside,
    At.LET_GO: Explorer.let_go,
    At.SEE_WHO_WAITS: Explorer.see_who_waits,
    At.CHOOSE_WHOM: Explorer.choose_whom,
    At.WAKE: Explorer.wake,
}
