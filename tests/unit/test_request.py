"""Environment and annotations -> a Request: every key, precedence, contradictions, misspellings."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuportion import sizes
from gpuportion.errors import GpuportionError
from gpuportion.shim import request
from gpuportion.shim.request import KEYS, Request, Role, from_container, from_keys

REPO = Path(__file__).parents[2]
G4, G8 = sizes.parse("4G"), sizes.parse("8G")

UNDERSTOOD: list[tuple[list[str], Request]] = [
    (["GPU_MEMORY_LIMIT=4G"], Request(memory=(G4,))),
    (["GPU_MEMORY_LIMIT=4G,8G"], Request(memory=(G4, G8), count=2)),
    (["GPU_MEMORY_LIMIT=4G, 8G", "GPU_COUNT=2"], Request(memory=(G4, G8), count=2)),
    (["GPU_MEMORY_LIMIT=4G", "GPU_COUNT=2"], Request(memory=(G4, G4), count=2)),
    (["GPU_MEMORY_LIMIT=" + ",".join(["4G"] * 16)], Request(memory=(G4,) * 16, count=16)),
    (["GPU_FRACTION=0.5"], Request(fraction=Decimal("0.5"))),
    (["GPU_FRACTION=1"], Request(fraction=Decimal(1))),
    (["GPU_FRACTION=.3333"], Request(fraction=Decimal("0.3333"))),
    (["GPU_COMPUTE=30"], Request(compute=30)),
    (["GPU_COMPUTE=100", "GPU_MEMORY_LIMIT=4G"], Request(compute=100, memory=(G4,))),
    (["GPU_MIG=2g.10gb"], Request(mig="2g.10gb")),
    (["GPU_MIG=1G.10GB+ME"], Request(mig="1g.10gb+me")),
    (["GPU_MIG=2g.10gb", "GPU_MEMORY_LIMIT=4G"], Request(mig="2g.10gb", memory=(G4,))),
    (["GPU_COUNT=2"], Request(count=2)),
    (["GPU_SELECT=0,GPU-1234,*A100*"], Request(select=("0", "GPU-1234", "*A100*"))),
    (["GPU_SELECT=" + "x" * 128], Request(select=("x" * 128,))),
    (["GPU_SELECT=" + ",".join("0" * 64)], Request(select=("0",) * 64)),
    (["GPU_ROLE=mig", "GPU_MEMORY_LIMIT=4G"], Request(role=Role.MIG, memory=(G4,))),
    (["GPU_MIG_GROW=allow", "GPU_MEMORY_LIMIT=4G"], Request(mig_grow=True, memory=(G4,))),
    (["NVIDIA_GPU_MEMORY_LIMIT=1"], Request(memory=(sizes.MIB,))),
    (["NVIDIA_GPU_MEMORY_LIMIT=4096"], Request(memory=(4096 * sizes.MIB,))),
    (["NVIDIA_GPU_MEMORY_REQUEST=4096", "GPU_COUNT=2"], Request(memory=(4096 * sizes.MIB,) * 2, count=2)),
    (["NVIDIA_GPU_MEMORY_LIMIT=1024", "GPU_MEMORY_LIMIT=1Gi"], Request(memory=(1 << 30,))),
    (["GPU_MEMORY_LIMIT=1G", "GPU_MEMORY_LIMIT=4G"], Request(memory=(G4,))),
    (["GPU_MEMORY_LIMIT=4G", "GPU_MEMORY_UTILIZATION=0.9"], Request(memory=(G4,))),
]

REFUSED: list[tuple[list[str], str]] = [
    (["GPU_MEMORY_LIMIT=4000"], "GP102 GPU_MEMORY_LIMIT=4000 has no unit. Write 4000M, 4G or 4Gi."),
    (["GPU_MEMORY_LIMIT="], "GP102 GPU_MEMORY_LIMIT= is empty. Write 4000M, 4G or 4Gi."),
    (["GPU_MEMORY_LIMIT"], "GP102 GPU_MEMORY_LIMIT= is empty. Write 4000M, 4G or 4Gi."),
    (["GPU_MEMORY_LIMIT=4G,8"], "GP102 GPU_MEMORY_LIMIT=4G,8: 8 has no unit. Write 8M, 4G or 4Gi."),
    (
        ["GPU_MEMORY_LIMIT=4G,"],
        "GP107 GPU_MEMORY_LIMIT=4G, has an empty place. Write one amount for each GPU,",
    ),
    (["GPU_MEMORY_LIMIT=-4G"], "GP102 GPU_MEMORY_LIMIT='-4G' is not an amount"),
    (["GPU_MEMORY_LIMIT=0G"], "GP102 GPU_MEMORY_LIMIT=0G is less than 1 MiB"),
    (
        ["GPU_MEMORY_LIMIT=4G,8G", "GPU_COUNT=3"],
        "GP106 GPU_MEMORY_LIMIT=4G,8G and GPU_COUNT=3 contradict each other: 2 amounts for 3 GPUs",
    ),
    (
        ["GPU_MEMORY_LIMIT=4G,8G", "GPU_COUNT=1"],
        "GP106 GPU_MEMORY_LIMIT=4G,8G and GPU_COUNT=1 contradict each ",
    ),
    (
        ["GPU_MEMORY_LIMIT=" + ",".join(["4G"] * 17)],
        f"GP107 GPU_MEMORY_LIMIT={','.join(['4G'] * 17)} has 17 amounts; one container can get 16 GPUs.",
    ),
    (
        ["GPU_MEMORY_LIMIT=4G", "GPU_FRACTION=0.5"],
        "GP106 GPU_MEMORY_LIMIT=4G and GPU_FRACTION=0.5 contradict each other: one is an amount, the other a part "
        "of a GPU",
    ),
    (
        ["NVIDIA_GPU_MEMORY_LIMIT=9", "GPU_FRACTION=0.5"],
        "GP106 NVIDIA_GPU_MEMORY_LIMIT=9 and GPU_FRACTION=0.5",
    ),
    (
        ["GPU_FRACTION=0"],
        "GP107 GPU_FRACTION=0 is not above 0 and up to 1. Write 0.5 for half a GPU, GPU_COUNT=2 for two GPUs.",
    ),
    (["GPU_FRACTION=1.0001"], "GP107 GPU_FRACTION=1.0001 is not above 0"),
    (
        ["GPU_FRACTION=0.50000"],
        "GP107 GPU_FRACTION=0.50000 has more than 4 decimals. Write 0.3333 for a third.",
    ),
    (["GPU_FRACTION=50%"], "GP107 GPU_FRACTION=50% is not a part of a GPU"),
    (["GPU_FRACTION=nan"], "GP107 GPU_FRACTION=nan is not a part of a GPU"),
    (["GPU_FRACTION=1e-1"], "GP107 GPU_FRACTION=1e-1 is not a part of a GPU"),
    (["GPU_FRACTION=0.5,0.5"], "GP107 GPU_FRACTION=0.5,0.5 is not a part of a GPU"),
    (["GPU_FRACTION="], "GP107 GPU_FRACTION= is empty. Give it a value, or leave it out."),
    (
        ["GPU_COMPUTE=0"],
        "GP107 GPU_COMPUTE=0 is not a per cent of a GPU's compute. Write a whole number from 1 to 100.",
    ),
    (["GPU_COMPUTE=101"], "GP107 GPU_COMPUTE=101 is not a per cent"),
    (["GPU_COMPUTE=30%"], "GP107 GPU_COMPUTE=30% is not a per cent"),
    (["GPU_COMPUTE=0.3"], "GP107 GPU_COMPUTE=0.3 is not a per cent"),
    (["GPU_COUNT=0"], "GP107 GPU_COUNT=0 is not a number of GPUs"),
    (
        ["GPU_COUNT=17"],
        "GP107 GPU_COUNT=17 is not a number of GPUs that one container can get. Write a whole number ",
    ),
    (["GPU_COUNT=all"], "GP107 GPU_COUNT=all is not a number of GPUs"),
    (
        ["GPU_MIG=1g.5gb,1g.5gb"],
        "GP107 GPU_MIG=1g.5gb,1g.5gb names several profiles; a container gets one. Write one, such as 2g.10gb.",
    ),
    (["GPU_MIG=2g=10gb"], "GP107 GPU_MIG=2g=10gb is not the name of a MIG profile"),
    (["GPU_MIG=" + "x" * 80], f"GP107 GPU_MIG={'x' * 80} is not the name"),
    (["GPU_MIG=" + "x" * 81], f"GP107 GPU_MIG={'x' * 77}... is not the name"),
    (["GPU_SELECT=0\x07"], "GP107 GPU_SELECT='0\\x07' is not a choice of GPUs"),
    (["GPU_MIG=2g 10gb"], "GP107 GPU_MIG=2g 10gb is not the name of a MIG profile"),
    (["GPU_SELECT=0,,1"], "GP107 GPU_SELECT=0,,1 is not a choice of GPUs"),
    (["GPU_SELECT=" + "x" * 129], "GP107 GPU_SELECT=xxxxx"),
    (["GPU_SELECT=" + ",".join("0" * 65)], "GP107 GPU_SELECT=0,0,0"),
    (
        ["GPU_ROLE=whole", "GPU_COUNT=1"],
        "GP107 GPU_ROLE=whole is not a way of serving. Write fraction or mig.",
    ),
    (
        ["GPU_ROLE=mig"],
        "GP107 GPU_ROLE=mig asks for nothing by itself. Add GPU_MEMORY_LIMIT, for example.",
    ),
    (["GPU_MIG_GROW=allow"], "GP107 GPU_MIG_GROW=allow asks for nothing by itself"),
    (["GPU_MIG_GROW=yes", "GPU_COUNT=1"], "GP107 GPU_MIG_GROW=yes is not understood. Write allow"),
    (["NVIDIA_GPU_MEMORY_LIMIT=4G"], "GP107 NVIDIA_GPU_MEMORY_LIMIT=4G is not a whole number of MiB"),
    (["NVIDIA_GPU_MEMORY_LIMIT=0"], "GP107 NVIDIA_GPU_MEMORY_LIMIT=0 is not a whole number of MiB above 0"),
    (["NVIDIA_GPU_MEMORY_LIMIT="], "GP107 NVIDIA_GPU_MEMORY_LIMIT= is not a whole number"),
    (
        ["NVIDIA_GPU_MEMORY_LIMIT=4096", "NVIDIA_GPU_MEMORY_REQUEST=2048"],
        "GP106 NVIDIA_GPU_MEMORY_LIMIT and NVIDIA_GPU_MEMORY_REQUEST contradict each other: 4096 is 4096 MiB,",
    ),
    (
        ["NVIDIA_GPU_MEMORY_LIMIT=4096", "GPU_MEMORY_LIMIT=4G"],
        "GP106 GPU_MEMORY_LIMIT and NVIDIA_GPU_MEMORY_LIMIT contradict each other: 4G is 3814 MiB,",
    ),
    (["GPU_MEMORY_LIMIT=4G\nFAKE=1"], "GP102 GPU_MEMORY_LIMIT='4G\\nFAKE=1' is not an amount"),
]

MISSPELT = {
    "GPU_MEMORY_LIMT": "GPU_MEMORY_LIMIT",
    "GPU_MEMORY_LIMITS": "GPU_MEMORY_LIMIT",
    "GPU_MEMORY": "GPU_MEMORY_LIMIT",
    "GPU_MEMORY_MAX": "GPU_MEMORY_LIMIT",
    "GPU_MEMORYLIMIT": "GPU_MEMORY_LIMIT",
    "gpu_memory_limit": "GPU_MEMORY_LIMIT",
    "GPU_FRACTON": "GPU_FRACTION",
    "GPU_COMPUT": "GPU_COMPUTE",
    "GPU_COUNTS": "GPU_COUNT",
    "gpuportion.io/memory_limit": "gpuportion.io/memory-limit",
    "gpuportion.io/GPU_MEMORY_LIMIT": "gpuportion.io/memory-limit",
    "gpuportion.io/Fraction": "gpuportion.io/fraction",
    "GPUportion.io/memory-limit": "gpuportion.io/memory-limit",
    "gpuportion.io/": "gpuportion.io/",
}
NOT_OURS = [
    "GPU_MODE=x",
    "GPU_NUM=2",
    "GPU_AMOUNT=2",
    "CUDA_VISIBLE_DEVICES=0",
    "MEMORY_LIMIT=4G",
    "GPU=1",
    "PATH=/bin",
    "=",
]


@pytest.mark.parametrize(("env", "expected"), UNDERSTOOD)
def test_an_environment_is_understood(env: list[str], expected: Request) -> None:
    """Each key, alone and with those that go with it."""
    assert from_container(env, {}) == expected


@pytest.mark.parametrize(("env", "sentence"), REFUSED)
def test_a_bad_request_is_refused_with_a_sentence(env: list[str], sentence: str) -> None:
    """Bad input never means "no limit"; the message says the value back and what to write."""
    with pytest.raises(GpuportionError) as refusal:
        from_container(env, {})
    assert refusal.value.text.startswith(sentence)
    assert refusal.value.text.isprintable() and len(refusal.value.text) < 300


@pytest.mark.parametrize(("name", "nearest"), MISSPELT.items())
def test_a_misspelt_key_is_never_no_request(name: str, nearest: str) -> None:
    """Alone or beside a good key, it is refused with the name that was meant."""
    annotation = "/" in name
    env, annotations = ([], {name: "4G"}) if annotation else ([f"{name}=4G"], {})
    for more in ([], ["GPU_MEMORY_LIMIT=4G"]):
        with pytest.raises(GpuportionError) as refusal:
            from_container([*more, *env], annotations)
        assert refusal.value.text.startswith(f"GP108 {name} is not known. Did you mean {nearest}")


@pytest.mark.parametrize("entry", NOT_OURS)
def test_other_names_ask_for_nothing(entry: str) -> None:
    """Names that only resemble ours belong to others."""
    assert from_container([entry], {"io.kubernetes.pod.name": "x"}) is None


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.field)
def test_an_annotation_goes_before_the_environment(key: request.Key) -> None:
    """Key by key: even a bad value in the environment is not looked at then."""
    values = {"memory": "4G", "fraction": "0.5", "mig": "2g.10gb", "role": "mig", "mig_grow": "allow"}
    value = values.get(key.field, "2")
    count = {} if key.field in request.ASKING else {"gpuportion.io/count": "1"}
    got = from_container([f"{key.env}=%"], {request.DOMAIN + key.annotation: value, **count})
    assert got == from_container([], {request.DOMAIN + key.annotation: value, **count})
    assert got is not None and got.source == "annotation"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.field)
def test_a_bad_annotation_is_named_as_it_was_written(key: request.Key) -> None:
    """Not by the name that it has in the environment, which the user did not write."""
    name = request.DOMAIN + key.annotation
    with pytest.raises(GpuportionError) as refusal:
        from_container([f"{key.env}=1"], {name: ""})
    assert refusal.value.text[5:].startswith(f" {name}= is empty. ")


def test_an_annotated_amount_goes_before_another_products_keys() -> None:
    """NVIDIA_GPU_MEMORY_* come with the environment, so they yield as it does."""
    got = from_container(["NVIDIA_GPU_MEMORY_LIMIT=9999"], {"gpuportion.io/memory-limit": "4G"})
    assert got is not None and got.memory == (G4,)


def test_the_source_is_told() -> None:
    """An administrator may refuse requests that an image makes by its environment."""
    both = from_container(["GPU_COUNT=1"], {"gpuportion.io/memory-limit": "4G"})
    assert both is not None and both.source == "annotation+env"
    alias = from_container(["NVIDIA_GPU_MEMORY_LIMIT=512"], {})
    assert alias is not None and alias.source == "env"


@pytest.mark.parametrize(("name", "value"), request.SANDBOX.items())
def test_an_annotation_written_by_hand_does_not_undo_a_request(name: str, value: str) -> None:
    """A pause container's environment asks for nothing: one that does is none."""
    assert from_container(["GPU_MEMORY_LIMIT=4G"], {name: value}) == Request(memory=(G4,))


def test_whose_a_container_is_asks_for_nothing() -> None:
    """An annotation of ours that is no request."""
    assert from_container([], {request.USER: "alice"}) is None


def test_a_flood_of_names_is_refused_at_once() -> None:
    """Each would be compared with ours, while nobody else is served."""
    names = [f"GPU_{chr(65 + n // 26) * 9}{chr(65 + n % 26) * 9}=1" for n in range(request.MOST_STRANGE + 1)]
    assert from_container(names[1:], {}) is None
    with pytest.raises(GpuportionError) as refusal:
        from_container(names, {})
    assert refusal.value.text.endswith(
        "257 environment variables begin with GPU_ and are not ours; 256 are looked at"
    )
    with pytest.raises(GpuportionError, match="100000 environment variables begin with GPU_"):
        request.from_container([f"GPU_MXMO{n}=1" for n in range(100_000)], {})
    assert request.from_container([f"GPU_{'M' * 100_000}{n}=1" for n in range(200)], {}) is None


@pytest.mark.parametrize(("name", "value"), request.SANDBOX.items())
def test_a_pause_container_asks_for_nothing(name: str, value: str) -> None:
    """The pod's annotations reach its sandbox too, which runs no GPU program."""
    assert from_container(["PATH=/bin"], {name: value, "gpuportion.io/memory-limit": "4G"}) is None


def test_a_number_or_a_choice_alone_is_whole_gpus() -> None:
    """GPU_COUNT and GPU_SELECT alone ask for whole GPUs, any part of one makes it a portion."""
    for env, whole in {
        "GPU_COUNT=2": True,
        "GPU_SELECT=0": True,
        "GPU_MIG=1g.5gb": False,
        "GPU_COMPUTE=5": False,
    }.items():
        got = from_container([env], {})
        assert got is not None and got.whole is whole


def test_keys_of_exec_are_those_of_the_environment() -> None:
    """An unknown key is refused rather than left out, and so is asking for nothing."""
    assert from_keys({"GPU_MEMORY_LIMIT": "4G"}) == Request(memory=(G4,))
    for keys, code, part in (
        ({"LD_PRELOAD": "x"}, "GP108", "LD_PRELOAD is not known"),
        ({}, "GP304", "it asks for nothing. Give --gpu-memory 4G, for example."),
        ({"GPU_MEMORY_LIMIT": ""}, "GP102", "GPU_MEMORY_LIMIT= is empty"),
    ):
        with pytest.raises(GpuportionError, match=re.escape(part)) as refusal:
            from_keys(keys)
        assert refusal.value.code == code


REQUESTS = st.builds(
    Request,
    memory=st.lists(st.integers(1, 1 << 20).map(lambda n: n * sizes.MIB), max_size=4).map(tuple),
    fraction=st.none() | st.decimals("0.0001", "1", places=4),
    compute=st.none() | st.integers(1, 100),
    mig=st.none() | st.just("2g.10gb"),
    count=st.integers(1, 16),
    select=st.lists(st.text(min_size=1)).map(tuple),
    role=st.none() | st.sampled_from(Role),
    mig_grow=st.booleans(),
    source=st.sampled_from(["env", "annotation", "annotation+env"]),
)


@given(REQUESTS)
def test_a_request_survives_the_store(given_request: Request) -> None:
    """to_json, JSON text, from_json: the same Request."""
    assert Request.from_json(json.loads(json.dumps(given_request.to_json()))) == given_request


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([key.env for key in KEYS] + list(request.ALIASES)),
        st.text(max_size=12)
        | st.sampled_from(["4G", "4G,8G", "0.5", "30", "2g.10gb", "2", "mig", "allow", "512"]),
    ).map("=".join),
    min_size=1,
    max_size=6,
)


@given(ENTRIES)
def test_any_value_is_a_request_or_a_refusal(env: list[str]) -> None:
    """Never None where one of our keys is set, never another exception, and a Request is always coherent."""
    try:
        got = from_container(env, {})
    except GpuportionError as refusal:
        assert refusal.code in ("GP102", "GP106", "GP107") and "\n" not in refusal.text
        return
    assert got is not None
    assert len(got.memory) in (0, got.count) and not (got.memory and got.fraction is not None)


def test_the_documentation_has_every_key() -> None:
    """docs/requests.md and the table of keys say the same, row by row."""
    text = (REPO / "docs/requests.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `GPU_")]
    documented = [tuple(cell.strip().strip("`") for cell in row) for row in rows]
    assert documented == [(key.env, request.DOMAIN + key.annotation, key.flag) for key in KEYS]
    for name in (*request.ALIASES, *request.FOREIGN):
        assert f"`{name}`" in text


def test_the_launcher_lets_through_the_same_names() -> None:
    """It asks the daemon about every name of ours; what is not ours must not need a daemon."""
    text = (REPO / "shim/c/request_keys.c").read_text()
    beginnings, foreign = (
        re.findall(r'"([^"]+)"', re.search(rf"{name}\[\] = {{([^}}]*)}}", text)[1])  # type: ignore[index]
        for name in ("BEGINNINGS", "FOREIGN")
    )
    assert {name.rstrip("=") for name in foreign} == request.FOREIGN
    for name in (*request.ENV_KEYS, *request.ANNOTATION_KEYS, *request.ALIASES):
        assert name.startswith(tuple(beginnings))
