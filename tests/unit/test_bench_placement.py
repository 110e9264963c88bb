"""The placement benchmark replays a trace in the openb form, and prints its figures last."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench/placement.py"
TRACE = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
whole,12000,16384,1,1000,,LS,Running,0,900,0
half,6000,12288,1,500,,LS,Running,10,900,10
pair,6000,12288,2,1000,V100M16|V100M32,BE,Running,20,,20
wide,6000,12288,16,1000,,LS,Failed,30,900,30
none,6000,12288,0,0,,LS,Running,40,900,40
late,6000,12288,1,300,,LS,Succeeded,600,900,600
"""


def figures(*options: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    """Jobs without a GPU or wider than a node are left out; a small load on many GPUs is served whole."""
    trace = tmp_path / "openb.csv"
    trace.write_text(TRACE)
    found = figures("--trace", str(trace), "--seeds", "1", "--load", "10")
    assert found["jobs"] == 4
    for way in ("first_fit", "best_fit", "spread", "fgd", "ours"):
        assert found[f"accepted_percent_{way}"] == 100
        assert found[f"linked_percent_{way}"] in (0, 100)
    assert found["linked_percent_ours"] == 100


def test_nobody_serves_more_than_there_is() -> None:
    """Ten times what one node has is asked for: it gets full and refuses."""
    found = figures("--jobs", "300", "--nodes", "1", "--seeds", "1", "--load", "10")
    for way in ("first_fit", "best_fit", "spread", "fgd", "ours"):
        assert 0 < found[f"accepted_percent_{way}"] < 100
        assert 0 < found[f"utilisation_percent_{way}"] <= 100
