"""A config.json, from its bytes over the request in it to the edited spec: refused with a sentence, or left alone, or
a spec that gives a portion and nothing beside it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from gpuportion.allocator import fast_json, fields, names, placement
from gpuportion.allocator.devices import Gpu, Holding, Share
from gpuportion.allocator.no_room import Refusal
from gpuportion.allocator.operations import plain
from gpuportion.errors import GpuportionError
from gpuportion.shim.request import Request, from_container
from gpuportion.shim.spec import change
from gpuportion.sizes import MIB
from tests.fuzz.source import Source, changed
from tests.support.daemon import CONFIG
from tests.support.gpu_specs import injection

NODE: Final = tuple(
    Gpu(n, f"GPU-{n:032}", "NVIDIA A100-SXM4-80GB", 81920 * MIB, reserved=700 * MIB) for n in (0, 1)
)
HELD: Final = [Holding("other", Share(NODE[0].uuid, 0, 30_000 * MIB))]
WORDS: Final = re.findall(
    r"\S+",
    """
    GPU_MEMORY_LIMIT=4G GPU_MEMORY_LIMIT GPU_FRACTION=0.5 GPU_FRACTION GPU_COUNT=2 GPU_COUNT GPU_SELECT=0 GPU_SELECT
    GPU_COMPUTE GPU_MIG GPU_ROLE GPU_MEMORY_LIMITS NVIDIA_GPU_MEMORY_LIMIT=4000 NVIDIA_VISIBLE_DEVICES=all
    CUDA_MPS_PIPE_DIRECTORY LD_PRELOAD=/x.so gpuportion.io/memory-limit 4G 4Gi 0.5G,1G NaN 1e9 0x10G
    annotations mounts hooks prestart createRuntime destination source type options bind rbind
    devices path c major minor resources linux process env args rootfsPropagation mountLabel namespaces uidMappings
    /dev/nvidia1 /dev/nvidiactl /.gpuportion /.gpuportion/policy /etc/ld.so.preload /usr/lib/x86_64-linux-gnu
    /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 /usr/bin/nvidia-smi
    """,
)
BASE: Final = CONFIG.read_text()
OWN: Final = "/.gpuportion"


def run(data: bytes) -> None:
    source = Source(data)
    config = source.rest() if source.number(3) == 0 else json.dumps(_document(source)).encode()
    try:
        check(config)
    except GpuportionError as refusal:
        assert plain(refusal.text).encode(), "a refusal that cannot be sent"


def _document(source: Source) -> Any:
    document = json.loads(BASE)
    if source.number(2):
        document["process"]["env"].append(source.one_of(WORDS[:8]) + source.text())
    while not source.is_dry:
        document = changed(document, source, WORDS)
    return document


def check(config: bytes) -> None:
    """GpuportionError: it is refused."""
    spec = fields.spec(config)
    env, annotations = fields.environment(spec), fields.annotations_of(spec)
    want = from_container(env, annotations)
    if want is None:
        assert not any(one.startswith(("GPU_MEMORY_LIMIT=", "GPU_FRACTION=")) for one in env), env
        return
    assert len(names.name_of("c1", spec).encode()) <= 4 * names.LONGEST
    found = placement.plan(NODE, HELD, want)
    if isinstance(found, Refusal):
        raise found.error('container "c1"')
    check_shares(want, found.shares)
    edited = change(spec, injection()).spec
    check_edited(json.loads(fast_json.dumps(edited)))


def check_shares(want: Request, shares: tuple[Share, ...]) -> None:
    """Never more than was asked for, nor than there is; never two of one GPU."""
    assert len(shares) == want.count == len({share.uuid for share in shares})
    for place, share in enumerate(shares):
        (gpu,) = [gpu for gpu in NODE if gpu.uuid == share.uuid]
        room = gpu.grantable - sum(held.share.limit for held in HELD if held.share.uuid == gpu.uuid)
        assert 256 * MIB <= share.limit <= room and share.limit % MIB == 0
        assert share.exclusive == want.whole
        if want.memory:
            assert share.limit <= want.memory[place]


def check_edited(spec: dict[str, Any]) -> None:
    """Ours is there once and read-only, and nothing of a GPU that was not granted."""
    env = spec["process"]["env"]
    assert [one for one in env if one.startswith("NVIDIA_VISIBLE_DEVICES=")] == [
        "NVIDIA_VISIBLE_DEVICES=void"
    ]
    preloads = [one for one in env if one.startswith("LD_PRELOAD=")]
    assert len(preloads) == 1 and preloads[0].startswith(f"LD_PRELOAD={OWN}/libcuda.so.1:")
    mounts = [one for one in spec["mounts"] if "destination" in one]  # the rest is the runtime's to refuse
    policies = [one for one in mounts if _path(one["destination"]) == f"{OWN}/policy"]
    assert len(policies) == 1 and "ro" in policies[0]["options"]
    assert policies[0]["source"].startswith("/run/gpuportion/grants/")
    last = [n for n, one in enumerate(mounts) if _path(one["destination"]) == OWN]
    assert len(last) == 1 and not any(
        OWN.startswith(_path(one["destination"]).rstrip("/") + "/") for one in mounts[last[0] + 1 :]
    ), "something lies over ours"
    devices = {
        (one["path"], one.get("major"), one.get("minor"))
        for one in spec["linux"]["devices"]
        if isinstance(one, dict)
    }
    assert not any(major == 195 and minor not in (0, 255) for _, major, minor in devices), devices
    assert any("gpuportion-hook" in one["path"] for one in spec["hooks"]["createRuntime"])


def _path(text: object) -> str:
    """As a runtime takes it: from the container's root."""
    return "/" + "/".join(part for part in str(text).split("/") if part)
