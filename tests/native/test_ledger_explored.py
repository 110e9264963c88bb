"""The ledger's own sources under a scheduler that tries interleavings, kills, forks, stops and resizes.

GPUPORTION_EXPLORE=10 makes the random part ten times as long.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.native.ledger_build import Explorer, Seed, have_compiler, run

pytestmark = pytest.mark.skipif(not have_compiler(), reason="needs a C compiler (cc)")

# limit, preemptions, kills, resizes, then one script a process; see explore.c.
EVERY_SCHEDULE: Final = {
    "two race for room for one": ("1", "2", "0", "0", "|r1", "|r1"),
    "two race for their first cell, one dies": ("1", "1", "1", "0", "r1", "r1"),
    "grow, shrink and die": ("2", "2", "1", "0", "r1|r2", "r1|f1"),
    "the limit moves": ("3", "2", "0", "1", "r1|r2", "r1|r1"),
    "two threads of one process": ("2", "2", "0", "0", "r1|r1+f1", "r1|f1r1"),
    "two want what a dead one left": ("2", "2", "0", "0", "r2X|", "|r2", "|r2"),
    "a cell changes hands while another one settles": ("4", "2", "0", "0", "r1X", "r1|f1", "r1|r2", "r1X|"),
    "asking for the use takes the dead out": ("3", "2", "0", "0", "r2X|", "r1|u", "|r2"),
    "one wants what another keeps": ("2", "2", "0", "0", "r2f1f1|r1f1", "|r2"),
    "one wants what another keeps, one dies": ("2", "1", "1", "0", "r2f1f1|r1f1", "|r2"),
    "two want what a third keeps": ("2", "2", "0", "0", "r2f1f1|", "|r2", "|r1"),
    "the limit moves while something is kept": ("2", "2", "0", "1", "r2f1f1|r1", "|r1"),
    "a dead one kept something": ("2", "2", "0", "0", "r2f1f1X|", "|r2", "|r1"),
    "two threads keep and take": ("3", "1", "0", "0", "r3f1f1|r1f1+r1f1", "|r3"),
}

SEEDS: Final = (
    Seed("a change is not settled before the next", "total", "    settle(gpu, seen.tag);\n", ""),
    Seed(
        "the dead one's generation is not checked again",
        "total",
        "if (GP_LOAD(file->cell[cell].generation) != generation)",
        "if (0)",
    ),
    Seed(
        "the generation is read after the question whether its owner lives",
        "cell",
        "gp_take_out(file, gpu, cell, generation);\n    }",
        "gp_take_out(file, gpu, cell, GP_LOAD(file->cell[cell].generation));\n    }",
    ),
    Seed(
        "whoever is moving in passes for the living owner",
        "cell",
        "gp_os_unlocked(fd, GP_CELLS + cell)",
        "gp_os_unlocked(fd, cell)",
    ),
    Seed(
        "a new owner does not clean up",
        "cell",
        "    gp_take_out(file, block, cell, generation);\n    for",
        "    for",
    ),
    Seed(
        "one buffer instead of two",
        "total",
        "GP_STORE(shared->held[number & 1], held + gp_kept(GP_LOAD(shared->kept)));",
        "uint64_t all = held + gp_kept(GP_LOAD(shared->kept));\n"
        "    GP_STORE(shared->held[0], all);\n    GP_STORE(shared->held[1], all);",
    ),
    Seed(
        "a change counts before it is made",
        "total",
        "    if (!swap_total(gpu, seen, used, tag_of(number, cell, lane)))",
        "    GP_STORE(shared->done, number);\n"
        "    if (!swap_total(gpu, seen, used, tag_of(number, cell, lane)))",
    ),
    Seed(
        "a refusal is not confirmed by the tag and the limit",
        "ledger",
        "        } else if (!swept) {\n"
        "            if (!sweep(ledger, own, lane, gpu))\n"
        "                return LOST;\n"
        "            swept = 1;\n"
        "        } else if (!gp_fits(seen.used, bytes, gp_limit(ledger, gpu)) &&\n"
        "                   GP_LOAD(block->total.tag) == seen.tag) {",
        "        } else {\n            swept = 1;",  # where nobody dies, looking for the dead changes nothing
        ("resizing", "7", "2000", "3000"),
    ),
    Seed("a refusal without looking for the dead", "ledger", "swept = 0; round", "swept = 1; round"),
    Seed(
        "whoever settles stores instead of comparing",
        "total",
        "GP_CAS(made->done, done, number);",
        "GP_STORE(made->done, number);",
    ),
    Seed(
        "a generation is voided by a store",
        "total",
        "gp_raise(&gpu->share[cell].voided, number);",
        "if (GP_LOAD(gpu->share[cell].voided) < number)\n        GP_STORE(gpu->share[cell].voided, number);",
        ("all", *EVERY_SCHEDULE["a cell changes hands while another one settles"]),
    ),
    Seed(
        "taking out marks first, subtracts later",
        "total",
        "        if (swap_total(gpu, seen, seen.used - share, mark)) {",
        "        settle(gpu, mark);\n        if (swap_total(gpu, seen, seen.used - share, mark)) {",
    ),
    Seed(
        "tags come back",
        "total",
        "tag_of(number, cell, lane)))",
        "tag_of(number & 1, cell, lane)))",
    ),
    Seed(
        "the limit is read before the total",
        "ledger",
        "        struct gp_sight seen = gp_look(block);\n"
        "        if (!gp_cell_intact(ledger, own, lane, gpu))\n"
        "            return LOST;\n"
        "        if (!obey || gp_fits(seen.used, bytes, gp_limit(ledger, gpu))) {",
        "        uint64_t limit = gp_limit(ledger, gpu);\n"
        "        struct gp_sight seen = gp_look(block);\n"
        "        if (!gp_cell_intact(ledger, own, lane, gpu))\n"
        "            return LOST;\n"
        "        if (!obey || gp_fits(seen.used, bytes, limit)) {",
    ),
    Seed(
        "mending does not compare",
        "total",
        "if (sum != seen.used && gp_try_change(gpu, cell, lane, own, seen, sum, own->held))",
        "GP_STORE(gpu->total.used, sum);\n    if (0)",
    ),
    Seed(
        "a new owner does not raise the generation",
        "cell",
        "    GP_STORE(home->generation, generation + 1);",
        "    generation -= generation > 1;\n    GP_STORE(home->generation, generation + 1);",
    ),
    Seed(
        "a lane's number starts again with each owner",
        "cell",
        "if (GP_LOAD(lane->done) > GP_NUMBERS)",
        "if (1)",
    ),
    Seed(
        "freeing takes more than a lane holds",
        "ledger",
        "*bytes < state->held ? *bytes : state->held;",
        "*bytes;",
    ),
    Seed(
        "freeing forgets what sibling threads took",
        "ledger",
        "i < GP_LANES && *bytes; i++",
        "i < 1 && *bytes; i++",
    ),
    Seed(
        "a refusal without asking for what is kept",
        "ledger",
        "} else if (gp_drain_all(ledger->file, block)) {",
        "} else if (0) {",
    ),
    Seed(
        "the limit is not asked where something is kept",
        "keeping",
        "(obey && !within_limit(seat.block, policy)) ||",
        "",
    ),
    Seed(
        "a closed lane is taken from",
        "keeping",
        "if (!gp_is_open(word) || bytes % GP_KEPT_UNIT || gp_kept(word) < bytes",
        "if (bytes % GP_KEPT_UNIT || gp_kept(word) < bytes",
    ),
    Seed(
        "a lane is drained without being closed",
        "total",
        "uint64_t word = gp_close_lane(at), mark",
        "uint64_t word = GP_LOAD(at->kept), mark",
    ),
    Seed(
        "a lane is drained twice",
        "total",
        "if (GP_LOAD(total->tag) == tag && !gp_is_open(word) && gp_kept(word))",
        "if (!gp_is_open(word) && gp_kept(word))",
        ("keeping", "7", "20000", "3000"),
    ),
    Seed(
        "a lane is opened after the change, not before",
        "ledger",
        "        if (gp_try_change(block, own->cell, lane, state, seen, seen.used - part, state->held - part)) {\n",
        "        if (gp_try_change(block, own->cell, lane, state, seen, seen.used - part, state->held - part)) {\n"
        "            gp_open_lane(ledger, at, gpu, 0);\n",
        ("keeping", "7", "20000", "3000"),
    ),
    Seed(
        "what the dead kept stays in the total",
        "total",
        "        uint64_t share = gp_charged_to(file, gpu, cell);",
        "        uint64_t share = gp_share_of(file, gpu, cell);",
    ),
    Seed(
        "a change forgets what the lane keeps",
        "total",
        "held + gp_kept(GP_LOAD(shared->kept)));",
        "held);",
    ),
    Seed(
        "a lane's drained bytes count for ever",
        "total",
        "gp_drained(word, done) + (with_kept",
        "gp_drained(word, word >> 30) + (with_kept",
    ),
    Seed(
        "a lane serves two threads",
        "cell",
        "return !GP_LOAD(own->lane[lane].busy) && !GP_SWAP(own->lane[lane].busy, 1);",
        "return !GP_SWAP(own->lane[lane].busy, 0);",
    ),
)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    return Explorer(tmp_path_factory.mktemp("explored"))


@pytest.mark.parametrize("case", EVERY_SCHEDULE)
def test_no_schedule_breaks_the_account(explorer: Explorer, case: str) -> None:
    """Within its bounds every interleaving is tried; all shares, verdicts and the reader's view stay right."""
    done = run(explorer.program(), "all", *EVERY_SCHEDULE[case])
    assert done.returncode == 0, done.stdout


def test_no_random_run_breaks_the_account(explorer: Explorer) -> None:
    """Long runs with kills, stops, forks, resizes, a full table and two threads a process."""
    runs = 6000 * int(os.environ.get("GPUPORTION_EXPLORE", "1"))
    for mode in ("random", "resizing", "keeping"):
        done = run(explorer.program(), mode, "1", str(runs), "3000")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_a_seeded_fault_is_found(explorer: Explorer, seed: Seed) -> None:
    """What the explorer would not notice it could not vouch for."""
    done = run(explorer.program(seed), *seed.arguments)
    assert done.returncode != 0, f"not found: {done.stdout}"
