"""gpuportiond from its command line to its end: puts the parts together and nothing else.

    lock -> store -> what is left of an earlier run -> GPUs -> socket -> READY -> rounds of the server ->
    SIGTERM

It ends with pages and store in place: running containers need no daemon, and the next one goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import gc
import logging
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from gpuportion.allocator import (
    daemon_options,
    fault_points,
    injection,
    inventory,
    log_lines,
    processes,
    rebuild,
    systemd,
)
from gpuportion.allocator.auditor import Auditor
from gpuportion.allocator.containers import Containers
from gpuportion.allocator.editor.link import Editor
from gpuportion.allocator.gpu_users import users_of
from gpuportion.allocator.grants import Grants, now
from gpuportion.allocator.hints import Hints
from gpuportion.allocator.host_portion import HostPortions
from gpuportion.allocator.host_processes import HostProcesses
from gpuportion.allocator.mig.book import Book
from gpuportion.allocator.mig.host import Host
from gpuportion.allocator.mig.node import MigNode
from gpuportion.allocator.mig.partitions import Partitions
from gpuportion.allocator.mig.roles import KeptRoles
from gpuportion.allocator.mig.workers import Workers
from gpuportion.allocator.mig_changes import MigChanges
from gpuportion.allocator.mig_grants import MigGrants
from gpuportion.allocator.node_view import NodeView
from gpuportion.allocator.nvml import mig_mode
from gpuportion.allocator.nvml.mig import Migs
from gpuportion.allocator.operations import Operations
from gpuportion.allocator.placing import Placing
from gpuportion.allocator.policy import STOP, Policy
from gpuportion.allocator.policy_in_force import PolicyInForce
from gpuportion.allocator.questions import Questions
from gpuportion.allocator.recovery import recover
from gpuportion.allocator.role_changes import RoleChanges
from gpuportion.allocator.sampler import Sampler
from gpuportion.allocator.server import BACKLOG, Server
from gpuportion.allocator.store import BrokenStoreError, FullStoreError, Store, move_aside
from gpuportion.allocator.sweeper import Sweeper
from gpuportion.allocator.turns import Turns
from gpuportion.errors import GpuportionError

log: Final = logging.getLogger("gpuportiond")

FIRST_SAMPLE: Final = 30.0
"""Seconds to wait for NVML before saying that we are ready; then requests are refused with the reason."""


MIG: Final = "mig"
"""Among the tokens of grants, which are hex digits: time to look at MIG instances."""

LAST_WAIT: Final = 2.0
"""Seconds for a thread to end what it is about when the daemon ends."""

COLLECT_AFTER: Final = 20_000
"""Objects made before the youngest are looked at: a config.json alone is a thousand, and none of it is cyclic."""

SWITCH: Final = 0.0005
"""Seconds that one thread may keep the other from running."""


class StartError(Exception):
    """The daemon cannot run; the text is a sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    options = daemon_options.parser().parse_args(argv)
    log_lines.begin(sys.stderr)
    os.environ["GPUPORTION_RUN_DIR"] = options.run_dir  # socket paths in hooks follow it
    try:
        if place := fault_points.arm(os.environ):
            log.warning("a test's daemon: it ends itself at %s", place)
        with _locked(options.run_dir):
            _run(options)
    except (StartError, GpuportionError, fault_points.UnknownPointError) as problem:
        print(f"gpuportiond: {problem}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _locked(run_dir: str) -> Iterator[None]:
    """One daemon a run directory. The kernel drops the lock with its holder, however that ends."""
    try:
        os.makedirs(run_dir, mode=0o755, exist_ok=True)
        path = f"{run_dir}/gpuportiond.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as problem:
        raise StartError(f"{run_dir} cannot be used: {problem.strerror}. Run it as root.") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        why = (
            f"another gpuportiond (pid {holder}) serves {run_dir}. Stop it first, or give another --run-dir."
        )
        raise StartError(why) from None
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _run(options: argparse.Namespace) -> None:
    _raise_file_limit()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heeded; the file is read now anyway
    rules = PolicyInForce(options.config, options.run_dir, margin=options.margin)
    selector = selectors.DefaultSelector()
    hints = Hints(selector)
    editor = Editor(selector, _for_editor(options))
    store = _open_store(f"{options.run_dir}/store.sqlite3")
    portions = HostPortions(options.state_dir, injection.programs, inventory.library_folder)
    roles = KeptRoles(options.state_dir)
    workers = Workers()
    sweeper = Sweeper()
    sweeper.start()
    sampler = Sampler()
    sampler.start()
    grants = Grants(
        store,
        hints,
        options.run_dir,
        reservation_timeout=options.reservation_timeout,
        remove_more=lambda token: _remove_more(token, portions, partitions),
        on_instance=lambda token: partitions.is_used(token),  # noqa: PLW0108 (they are made below)
    )
    migs = Migs()
    partitions = _partitions(options, hints, grants, MigNode(roles), migs, workers, rules, sampler)
    recover(grants, functools.partial(_survivors, options, sampler))
    partitions.recover()
    grants.sweep = sweeper.sweep
    _remove_unowned(portions, store)
    view = NodeView(grants, options.state_dir)
    keep_to(view, rules.policy)
    mig = MigGrants(partitions, roles, _role_changes(roles, partitions, workers, grants, view, migs))
    view.followers.append(lambda sample: mig.update(view.gpus, sample))
    _await_first_sample(sampler)
    _take_sample(sampler, view)
    auditor = Auditor(view, grants)
    turns = Turns()
    operations = _operations(editor, grants, view, portions, mig, rules, auditor, turns)
    listener = _listener(options)
    server = Server(
        selector,
        listener,
        hints,
        operations.answer,
        look=lambda token: _look_at(token, grants, partitions),
        settle=lambda: _settle_down(grants, sweeper, editor),
    )
    server.on_readable(workers.wake, workers.take)
    server.on_readable(sweeper.wake, sweeper.take)
    server.on_readable(turns.wake, turns.go_on)
    server.on_readable(sampler.wake, lambda: _look(sampler, view, auditor, rules))
    with _signals(server, lambda: rules.read_again(functools.partial(keep_to, view))):
        _serve(server, options.run_dir, grants)
    sampler.stop()
    sweeper.stop(LAST_WAIT)
    editor.close()
    partitions.stop(LAST_WAIT)
    hints.close()
    listener.close()
    store.close()


def _listener(options: argparse.Namespace) -> socket.socket:
    """systemd's, where it keeps one open for us."""
    path = f"{options.run_dir}/gpuportiond.sock"
    return systemd.inherited_listener() or systemd.listen(path, options.socket_group, BACKLOG)


def _for_editor(options: argparse.Namespace) -> list[str]:
    where = [f"--cdi-dir={folder}" for folder in options.cdi_dir or ()]
    return [*where, f"--made={options.run_dir}/cdi/nvidia.json"]


def _role_changes(
    roles: KeptRoles, partitions: Partitions, workers: Workers, grants: Grants, view: NodeView, migs: Migs
) -> RoleChanges:
    return RoleChanges(
        roles,
        partitions.node,
        workers,
        users=lambda uuid: users_of(uuid, grants.live(), view.processes),
        clear=partitions.collect,
        switch=mig_mode.switch,
        read=migs.read,
    )


def _operations(
    editor: Editor,
    grants: Grants,
    view: NodeView,
    portions: HostPortions,
    mig: MigGrants,
    rules: PolicyInForce,
    auditor: Auditor,
    turns: Turns,
) -> Operations:
    placing = Placing(grants, view, mig, rules)
    return Operations(
        Containers(grants, view, editor, mig, rules, placing),
        HostProcesses(grants, portions, mig, placing),
        Questions(grants, view, mig, rules, auditor, turns, _version()),
        MigChanges(view, mig),
    )


def _serve(server: Server, run_dir: str, grants: Grants) -> None:
    """Until a signal ends it."""
    log.info("ready on %s/gpuportiond.sock: %d grants", run_dir, len(grants.live()))
    systemd.notify("READY=1")
    _settle()
    server.run()
    systemd.notify("STOPPING=1")
    log.info("ends; %d grants go on without it", len(grants.live()))


def _partitions(
    options: argparse.Namespace,
    hints: Hints,
    grants: Grants,
    node: MigNode,
    migs: Migs,
    workers: Workers,
    rules: PolicyInForce,
    sampler: Sampler,
) -> Partitions:
    host = Host(
        boot=processes.boot_id(),
        now=now,
        wake_at=lambda time: hints.at(MIG, time),
        labels=lambda: {grant.token: grant.label for grant in grants.live()},
        hurry=sampler.hurry,
        max_idle=lambda: rules.policy.mig_max_idle,
        patience=options.mig_timeout,
    )
    return Partitions(Book(f"{options.state_dir}/mig.json"), node, migs, workers, host)


def _remove_more(token: str, portions: HostPortions, partitions: Partitions) -> None:
    partitions.free(token)
    portions.remove(token)


def _settle_down(grants: Grants, sweeper: Sweeper, editor: Editor) -> None:
    """Nobody waits: time for what is left of grants that have ended."""
    grants.settle()
    editor.look()
    sweeper.hand_over()


def _look_at(token: str, grants: Grants, partitions: Partitions) -> None:
    """A time has come that was to be waited for."""
    if token == MIG:
        partitions.look()
    else:
        grants.look(token)


def _settle() -> None:
    """Nobody waits for the collector to look at modules again, nor 5 ms for the thread that reads NVML."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    sys.setswitchinterval(SWITCH)


def _open_store(path: str) -> Store:
    """The store; one that can't be read is moved aside, and what it knew is found again by `Grants.recover`."""
    try:
        return Store(path)
    except BrokenStoreError as problem:
        aside = f"{path}.broken"
        log.error("%s cannot be read: %s. It is kept as %s.", path, problem, aside)
        log.error("the grants of containers that run are found again by their pages; see docs/operations.md")
        move_aside(path, aside)
    except FullStoreError as problem:
        raise StartError(f"{path} cannot be opened: {problem}. Make room there, then start again.") from None
    return Store(path)


def _survivors(options: argparse.Namespace, sampler: Sampler, tokens: Collection[str]) -> list[rebuild.Found]:
    _await_first_sample(sampler)
    index = {reading.uuid: reading.index for reading in sampler.latest.readings}
    return rebuild.find(f"{options.run_dir}/grants", f"{options.state_dir}/exec", tokens, index)


def _raise_file_limit() -> None:
    """A grant takes a descriptor, and so does a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _remove_unowned(portions: HostPortions, store: Store) -> None:
    for token in portions.tokens():
        if store.get(token) is None:
            portions.remove(token)


def _await_first_sample(sampler: Sampler) -> None:
    selector = selectors.DefaultSelector()
    selector.register(sampler.wake, selectors.EVENT_READ)
    if not selector.select(FIRST_SAMPLE):
        log.warning("NVML has not answered in %d s; requests are refused until it does", int(FIRST_SAMPLE))
    selector.close()


def _take_sample(sampler: Sampler, view: NodeView) -> bool:
    """Whether there was one; else NVML has been silent for long, and that is all that is known."""
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(sampler.wake)
    since = sampler.waiting_since
    if since is not None:
        view.wait_since(since)
        return False
    view.update(sampler.latest)
    return True


def _look(sampler: Sampler, view: NodeView, auditor: Auditor, rules: PolicyInForce) -> None:
    if _take_sample(sampler, view) and auditor.look(now(), stop=rules.policy.audit == STOP):
        sampler.hurry()


def keep_to(view: NodeView, policy: Policy) -> None:
    """Let the view of the node follow the rules."""
    view.keep_to(policy.margin, policy.overcommit)


@contextlib.contextmanager
def _signals(server: Server, read_again: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT end the loop; SIGHUP makes it read the configuration again, between two answers."""
    ours, wake = socket.socketpair()
    ours.setblocking(False)
    wake.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    signal.signal(signal.SIGHUP, lambda *_: None)  # its number comes through the socket
    before = signal.set_wakeup_fd(wake.fileno())
    server.on_readable(ours, lambda: read_again() if signal.SIGHUP in _arrived(ours) else None)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        wake.close()


def _arrived(sock: socket.socket) -> bytes:
    """The numbers of the signals that came."""
    with contextlib.suppress(BlockingIOError):
        return sock.recv(4096)
    return b""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gpuportion")
    except PackageNotFoundError:
        return "unbuilt"
