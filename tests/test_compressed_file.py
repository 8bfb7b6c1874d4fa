"""The compressed file: what goes in comes back, and what a stranger may send is refused."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from course_lib.formats.bits import encode_bits, sealed
from course_lib.formats.codebook import NF4, Codebook
from course_lib.formats.corrected import Corrected
from course_lib.formats.even_coded import EvenCoded
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import pack_model, unpack_tensors
from course_lib.formats.shared import Shared
from course_lib.formats.sparse import Sparse
from course_lib.formats.trits import Ternary
from course_lib.formats.two_of_four import TwoOfFour
from course_lib.formats.vectors import Vectors
from course_lib.low_rank.layers import with_factors
from course_lib.low_rank.svd import Factors
from course_lib.models.llama import Llama
from course_lib.models.llama_config import BlockShape, LlamaConfig
from course_lib.pipeline import compressed_file
from course_lib.pipeline.about import About, about_from_json, about_to_json, parse_json
from course_lib.pipeline.compressed_file import load_compressed, save_compressed
from course_lib.quantization.floats import E2M1

CONFIG = LlamaConfig(50, width=64, layers=2, heads=2, kv_heads=1, mlp_width=32, context=16)
UP = "blocks.0.mlp.up.weight"  # (32, 64)
FACTORS = Factors(torch.ones(32, 2), torch.ones(2, 64))
SCHEMES = {
    "float16": torch.float16,
    "linear": Scheme(Format(3), 32),
    "symmetric": Scheme(Format(4, symmetric=True), "channel"),
    "sparse": Sparse(),
    "two of four": TwoOfFour(),
    "two of four in codes": TwoOfFour(Scheme(Format(4), 32)),
    "codebook": Codebook(3, "channel"),
    "NF4": NF4,
    "few bits": FewBits(E2M1),
    "MX": MX(),
    "NVFP4": NVFP4(),
    "even": EvenCoded(0.02),
    "shared": Shared(),
    "vectors": Vectors(4, 3, 2),
    "ternary": Ternary(),
    "corrected": Corrected(Scheme(Format(2), 32), FACTORS),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.safetensors"


def a_llama(config: LlamaConfig = CONFIG) -> Llama:
    torch.manual_seed(0)
    return Llama(config).eval()


def few_values(weight: torch.Tensor) -> torch.Tensor:
    """2 of 4 are not zero, and few values: every scheme takes it."""
    coarse = (weight * 16).round().div(16).half().float()
    return coarse * torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(weight.shape[1] // 4)


@cache
def packed_with(kind: str) -> dict[str, torch.Tensor]:
    """A model of which one weight, (32, 64), is stored in this form."""
    model = a_llama()
    with torch.no_grad():
        model.blocks[0].mlp.up.weight.copy_(few_values(model.blocks[0].mlp.up.weight))
    return pack_model(model, {UP: SCHEMES[kind]})


# ------------------------------------------------------------------ back and forth


@pytest.mark.parametrize("kind", SCHEMES)
def test_every_form_comes_back_in_float32(kind, path):
    packed = packed_with(kind)
    count = save_compressed(path, packed, CONFIG, recipe=[{"scheme": kind}])
    back = load_compressed(path)
    assert back.bytes == count == path.stat().st_size
    assert back.recipe == [{"scheme": kind}] and back.model.config == CONFIG
    expected = unpack_tensors(packed, a_llama().state_dict())
    for name, weight in back.model.state_dict().items():
        assert weight.dtype == torch.float32 and not weight.requires_grad
        assert weight.equal(expected[name].float()), name


@pytest.mark.parametrize(
    "config",
    [
        CONFIG.with_shapes([BlockShape((1,), 7), BlockShape((2,), 32)]),
        LlamaConfig(50, 64, 1, 4, 2, 8, 16, tied=False, each_head=6),
    ],
    ids=["blocks that differ", "a head of its own"],
)
def test_models_of_other_shapes_come_back(config, path):
    model = a_llama(config)
    save_compressed(path, pack_model(model, {}), config)
    tokens = torch.arange(10)[None]
    assert load_compressed(path).model(tokens).equal(model(tokens))


def test_factored_layers_come_back(path):
    model = a_llama()
    small = with_factors(model, {UP: FACTORS, "blocks.1.attention.key.weight": _svd(model)})
    ranks = {UP: 2, "blocks.1.attention.key.weight": 5}
    save_compressed(path, pack_model(small, {}), CONFIG, ranks)
    tokens = torch.arange(10)[None]
    assert load_compressed(path).model(tokens).equal(small(tokens))


def _svd(model: Llama) -> Factors:
    u, s, v = torch.linalg.svd(model.blocks[1].attention.key.weight.detach())
    return Factors((u[:, :5] * s[:5]).contiguous(), v[:5].contiguous())


def test_a_tensor_of_two_names_is_written_once(path):
    model = a_llama()
    model.blocks[1] = model.blocks[0]
    twice = save_compressed(path, pack_model(a_llama(), {}), CONFIG)
    once = save_compressed(path, pack_model(model, {}), CONFIG)
    assert once < 0.8 * twice
    tokens = torch.arange(10)[None]
    assert load_compressed(path).model(tokens).equal(model(tokens))


def test_the_same_model_gives_the_same_bytes(path):
    """safetensors writes several entries of metadata in an order that changes."""
    recipe = [{"step": "a", "seed": 1}, {"step": "b"}]
    files = set()
    for _ in range(3):
        save_compressed(path, packed_with("linear"), CONFIG, {}, recipe)
        files.add(path.read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": {UP: 33}}, r"none above min\(O, I\)"),
        ({"ranks": {UP: 0}}, "from 1 to"),
        ({"ranks": {"embedding.weight": 1}}, "linear layers"),
        ({"ranks": {"blocks.0.mlp_norm.weight": 1}}, "linear layers"),
        ({"recipe": [{"x": float("nan")}]}, "JSON"),
        ({"recipe": [{"x": object()}]}, "recipe must be JSON"),
        ({"recipe": ["words"]}, "list of objects"),
        ({"config": LlamaConfig(50, 64, 1, 2, 1, 32, 16)}, "differs in"),
        ({"config": LlamaConfig(50, 8192, 1, 2, 1, 32, 16)}, "width must be from 1 to 4096"),
    ],
)
def test_what_would_not_come_back_is_not_written(change, message, path):
    given_ = {"packed": pack_model(a_llama(), {}), "config": CONFIG} | change
    with pytest.raises(ValueError, match=message):
        save_compressed(path, **given_)
    assert not path.exists()


# ------------------------------------------------------------------ strangers: the whole file


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps([1]))
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


NOT_SAFETENSORS = {
    "empty": b"",
    "seven bytes": b"1234567",
    "a pickle": pickle.dumps(Bomb()),
    "a zip": archive(),
    "text": b"import os\n" * 100,
    "zeros": bytes(1000),
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 4) + b"nope",
    "a deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "no metadata": struct.pack("<Q", 2) + b"{}",
    "GGUF": b"GGUF" + bytes(500),
}


@pytest.mark.parametrize("kind", NOT_SAFETENSORS)
def test_other_files_are_refused(kind, path):
    path.write_bytes(NOT_SAFETENSORS[kind])
    with pytest.raises(ValueError, match="safetensors|JSON"):
        load_compressed(path)


def test_a_folder_and_nothing_are_told(path):
    with pytest.raises(FileNotFoundError):
        load_compressed(path)
    path.mkdir()
    with pytest.raises(ValueError, match="must be that of a file"):
        load_compressed(path)


def test_a_file_that_is_cut_off_is_refused_wherever(path):
    save_compressed(path, packed_with("linear"), CONFIG)
    data = path.read_bytes()
    for end in [*range(0, 200, 13), *range(200, len(data), len(data) // 20), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="safetensors"):
            load_compressed(path)


def test_a_file_of_300_megabytes_is_not_read(path):
    with open(path, "wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(ValueError, match="at most 256,000,000 bytes"):
        load_compressed(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_are_refused_or_give_a_finite_model(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "x"
    kind = data.draw(st.sampled_from(sorted(SCHEMES)))
    save_compressed(path, packed_with(kind), CONFIG)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        model = load_compressed(path).model
    except ValueError:
        return
    assert all(weight.isfinite().all() for weight in model.state_dict().values())


# ------------------------------------------------------------------ strangers: what it says


def written(path, about: object, packed=None) -> None:
    """A file with this metadata, whatever it is."""
    text = about if isinstance(about, str) else json.dumps(about)
    tensors = {n: t.contiguous().clone() for n, t in (packed or pack_model(a_llama(), {})).items()}
    save_file(tensors, path, {"about": text})


def about(**changes) -> dict:
    return {"config": asdict(CONFIG), "ranks": {}, "recipe": [], "same": {}} | changes


def config(**changes) -> dict:
    return about(config=asdict(CONFIG) | changes)


BAD_ABOUT = {
    "nothing": "",
    "a list": [],
    "one field less": {"config": asdict(CONFIG)},
    "one field more": about(code="import os"),
    "deep": '{"config":' + "[" * 50_000 + "]" * 50_000 + "}",
    "a little deep": about(recipe=[{"a": [[[[[[[[1]]]]]]]]}]),
    "long": about(recipe=[{"a": "x" * 200_000}]),
    "NaN": about(recipe=[{"a": float("nan")}]),
    "infinite": '{"config": 1e999}',
    "a huge integer": '{"config": ' + "9" * 4000 + "}",
    "a number beyond Python's": '{"config": ' + "9" * 10_000 + "}",
    "a recipe of words": about(recipe="rm -rf"),
    "ranks as a list": about(ranks=[1]),
    "a rank of 1.5": about(ranks={UP: 1.5}),
    "a rank of true": about(ranks={UP: True}),
    "a rank of nothing": about(ranks={"blocks.9.mlp.up.weight": 1}),
    "a rank above": about(ranks={UP: 33}),
    "a rank of a factor": about(ranks={UP: 2, "blocks.0.mlp.up.left.weight": 1}),
    "same as nothing": about(same={"head.weight": "no such"}),
    "same as itself": about(same={"norm.weight": "norm.weight"}),
    "same as a list": about(same={"norm.weight": []}),
    **{
        f"{name} {value!r}": config(**{name: value})
        for name in ("vocabulary", "width", "layers", "heads", "kv_heads", "mlp_width", "context")
        for value in (0, -1, 2**40, 1.0, True, "8", None, [1])
    },
    **{f"rope_base {value!r}": config(rope_base=value) for value in (0, -1.0, 1e10, "x", None)},
    **{f"norm_epsilon {value!r}": config(norm_epsilon=value) for value in (0, -1.0, 2.0, [], "x")},
    "tied 1": config(tied=1),
    "an odd head": config(each_head=3),
    "wide heads": config(heads=256, kv_heads=256, each_head=1024),
    "blocks of text": config(blocks="xx"),
    "blocks of numbers": config(blocks=[1, 2]),
    "one block": config(blocks=[{"groups": [2], "mlp_width": 32}]),
    "no group": config(blocks=[{"groups": [], "mlp_width": 32}] * 2),
    "many groups": config(blocks=[{"groups": [1] * 300, "mlp_width": 32}] * 2),
    "a group of 0": config(blocks=[{"groups": [0], "mlp_width": 32}] * 2),
    "a block of text": config(blocks=[{"groups": ["a"], "mlp_width": 32}] * 2),
    "too many numbers": config(width=4096, heads=32, kv_heads=32, mlp_width=16_384, layers=64),
    "another model": config(layers=3),
}


@pytest.mark.parametrize("kind", BAD_ABOUT)
def test_what_a_file_says_is_checked(kind, path):
    written(path, BAD_ABOUT[kind])
    tracemalloc.start()
    with pytest.raises(ValueError, match="."):
        load_compressed(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_bounds_are_held_on_both_ways():
    good = About(CONFIG, {UP: 3}, [{"a": [1, 2.5, None, "ü\n"]}], {"a": "b"})
    assert about_from_json(about_to_json(good)) == good
    with pytest.raises(ValueError, match="at most 8 lists"):
        parse_json("[" * 10 + "]" * 10)
    assert parse_json("[" * 8 + "]" * 8)


# ------------------------------------------------------------------ strangers: one part


def stream(*parts: np.ndarray) -> torch.Tensor:
    return sealed(*parts)


def claims(count: int, blocks: int, symbols: int = 2) -> np.ndarray:
    """The head of a stream of so many codes, and blocks of 1024 bits that all are there."""
    head = np.array([count, symbols], "<u4").view(np.uint8)[:6]
    sizes = np.full(blocks, 1024, "<u2").view(np.uint8)
    return np.concatenate([head, np.array([17], np.uint8), sizes, np.zeros(blocks * 128, np.uint8)])


F16, U8 = torch.float16, torch.uint8
MANY = claims(1024 * 20_000, 20_000)  # 2.6 MB that would become 80 MB
CODES = torch.zeros(3 * 32 * 64 // 8, dtype=U8)
HEAD = np.array([0.1], "<f4"), np.array([0], "<i4")
TWO = np.array([2, 15], "<u2"), np.array([1, 2], "<f2")
BAD_PARTS = {
    "unknown": {"code": torch.zeros(1)},
    "two forms": {"codes": CODES, "trits": CODES},
    "codes alone": {"codes": CODES},
    "codes, two axes": {"codes": CODES[None], "scale": torch.ones(32, dtype=F16)},
    "codes, floats": {"codes": CODES.float(), "scale": torch.ones(32, dtype=F16)},
    "codes, short": {"codes": CODES[:-1], "scale": torch.ones(32, dtype=F16)},
    "codes, none": {"codes": CODES[:0], "scale": torch.ones(32, dtype=F16)},
    "codes, many": {"codes": CODES.repeat(20), "scale": torch.ones(32, dtype=F16)},
    "no scale": {"codes": CODES, "scale": torch.ones(0, dtype=F16)},
    "a scale without axes": {"codes": CODES, "scale": torch.tensor(1.0).half()},
    "a scale of two axes": {"codes": CODES, "scale": torch.ones(32, 1000, dtype=F16)},
    "scales that do not fill": {"codes": CODES, "scale": torch.ones(31, dtype=F16)},
    "a scale that is NaN": {"codes": CODES, "scale": torch.full((32,), torch.nan).half()},
    "a complex scale": {"codes": CODES, "scale": torch.ones(32, dtype=torch.complex64)},
    "a zero point short": {"codes": CODES, "scale": torch.ones(32).half(), "zero_point": CODES[:3]},
    "a bitmap short": {"values": torch.ones(3), "bitmap": torch.full((3,), 255, dtype=U8)},
    "a bitmap long": {"values": torch.ones(9), "bitmap": torch.zeros(10**6, dtype=U8)},
    "a bitmap of others": {"values": torch.ones(9), "bitmap": torch.ones(256, dtype=U8)},
    "gaps beyond": {"values": torch.ones(20), "gaps": torch.full((20,), 255, dtype=U8)},
    "gaps of zero": {"values": torch.ones(2), "gaps": torch.zeros(2, dtype=U8)},
    "gaps, many": {"values": torch.ones(10**6), "gaps": torch.ones(10**6, dtype=U8)},
    "gaps, fewer": {"values": torch.ones(1), "gaps": torch.ones(9, dtype=U8)},
    "indices below": {"values": torch.ones(1), "indices": torch.tensor([-1]).int()},
    "indices beyond": {"values": torch.ones(1), "indices": torch.tensor([2048]).int()},
    "indices twice": {"values": torch.ones(2), "indices": torch.tensor([5, 5]).int()},
    "indices as floats": {"values": torch.ones(1), "indices": torch.tensor([1.0])},
    "values as integers": {"values": torch.ones(1).int(), "indices": torch.tensor([1]).int()},
    "infinite values": {"values": torch.tensor([torch.inf]), "indices": torch.tensor([1]).int()},
    "places short": {"values": torch.ones(32, 32), "places": CODES[:1]},
    "places of fewer": {"values": torch.ones(32, 31), "places": torch.zeros(256, dtype=U8)},
    "levels, none": {"codes": CODES, "levels": torch.ones(1, 0)},
    "levels, no row": {"codes": CODES, "levels": torch.ones(0, 8)},
    "levels, one axis": {"codes": CODES, "levels": torch.ones(8)},
    "levels that fall": {"codes": CODES, "levels": torch.arange(8, 0, -1).half()[None]},
    "levels, few": {"codes": CODES + 255, "levels": torch.arange(4).half()[None]},
    "levels, many": {"codes": CODES, "levels": torch.arange(2000).half()[None]},
    "scaled by none": {
        "codes": CODES, "levels": torch.arange(8).half()[None], "scale": torch.ones(0)
    },
    "steps that miss": {
        "codes": CODES, "levels": torch.arange(8).half()[None],
        "scale_codes": torch.zeros(32, dtype=U8), "scale_step": torch.ones(9),
        "scale_mean": torch.tensor(1.0),
    },
    "a float of 9 bits": {
        "codes": CODES, "scale": torch.ones(32), "float": torch.tensor([4, 4, 1, 0], dtype=U8)
    },
    "a float of 3 bytes": {
        "codes": CODES, "scale": torch.ones(32), "float": torch.tensor([4, 4, 1], dtype=U8)
    },
    "exponents, few": {
        "codes": CODES, "exponents": torch.zeros(3, dtype=U8),
        "float": torch.tensor([1, 1, 1, 2], dtype=U8),
    },
    "exponents that are NaN": {
        "codes": CODES, "exponents": torch.full((64,), 255, dtype=U8),
        "float": torch.tensor([1, 1, 1, 2], dtype=U8),
    },
    "block scales, few": {
        "codes": CODES, "block_scales": torch.zeros(3, dtype=U8), "tensor_scale": torch.tensor(1.0)
    },
    "a tensor scale of many": {
        "codes": torch.zeros(1024, dtype=U8), "block_scales": torch.zeros(128, dtype=U8),
        "tensor_scale": torch.ones(100_000),
    },
    "even, empty": {"even_coded": torch.zeros(0, dtype=U8)},
    "even, a seal of nothing": {"even_coded": stream(np.zeros(0, np.uint8))},
    "even, five bytes": {"even_coded": stream(np.zeros(5, np.uint8))},
    "even, unsealed": {"even_coded": torch.zeros(100, dtype=U8)},
    "even, 2^32 codes": {"even_coded": stream(*HEAD, np.array([2**32 - 1, 2], "<u4"))},
    "even, twenty million codes": {"even_coded": stream(*HEAD, MANY)},
    "even, fewer codes": {"even_coded": stream(*HEAD, encode_bits(torch.ones(9).int()).numpy())},
    "even, a step of NaN": {
        "even_coded": stream(
            np.array([np.nan], "<f4"), HEAD[1], encode_bits(torch.ones(2048).int()).numpy()
        )
    },
    "shared, empty": {"shared": stream(np.zeros(0, np.uint8))},
    "shared, a codebook cut off": {"shared": stream(np.array([60_000, 15], "<u2"))},
    "shared, twenty million values": {"shared": stream(*TWO, MANY)},
    "shared, twenty million gaps": {
        "shared": stream(*TWO, encode_bits(torch.ones(9).int()).numpy(), MANY)
    },
    "shared, a value beyond": {
        "shared": stream(*TWO, *[encode_bits(torch.tensor([2, 2])).numpy()] * 2)
    },
    "shared, places beyond": {
        "shared": stream(
            *TWO, encode_bits(torch.tensor([1])).numpy(),
            encode_bits(torch.tensor([15] * 200 + [0])).numpy(),
        )
    },
    "shared, a span of 0": {
        "shared": stream(
            np.array([2, 0], "<u2"), TWO[1], *[encode_bits(torch.tensor([1, 1])).numpy()] * 2
        )
    },
    "vectors, two axes": {"codebooks": torch.ones(4, 4), "stages": torch.zeros(1, 128, dtype=U8)},
    "vectors of 0": {"codebooks": torch.ones(1, 4, 0), "stages": torch.zeros(1, 128, dtype=U8)},
    "vectors, none": {"codebooks": torch.ones(1, 0, 4), "stages": torch.zeros(1, 128, dtype=U8)},
    "vectors, no stage": {"codebooks": torch.ones(0, 4, 4), "stages": torch.zeros(0, 0, dtype=U8)},
    "vectors, a stage more": {
        "codebooks": torch.ones(1, 4, 4), "stages": torch.zeros(2, 128, dtype=U8)
    },
    "vectors, 10,000 stages": {
        "codebooks": torch.ones(10_000, 4, 64), "stages": torch.zeros(10_000, 8, dtype=U8)
    },
    "trits, a byte above": {"trits": torch.full((410,), 255, dtype=U8), "scale": torch.ones(32)},
    "trits, few": {"trits": torch.zeros(3, dtype=U8), "scale": torch.ones(32)},
    "left and right alone": {"left": torch.ones(32, 2), "right": torch.ones(2, 64)},
    "left and right of others": {
        "": torch.ones(32, 64), "left": torch.ones(50_000, 1), "right": torch.ones(1, 50_000)
    },
    "left that does not meet right": {
        "": torch.ones(32, 64), "left": torch.ones(32, 3), "right": torch.ones(2, 64)
    },
    "a base of another shape": {
        "": torch.ones(1, 64), "left": torch.ones(32, 2), "right": torch.ones(2, 64)
    },
    "a base of integers": {
        "": torch.ones(32, 64).int(), "left": torch.ones(32, 2), "right": torch.ones(2, 64)
    },
    "integers": {"": torch.ones(32, 64).int()},
    "another shape": {"": torch.ones(64, 32)},
    "too large for float32": {"": torch.full((32, 64), 1e300, dtype=torch.float64)},
    "NaN": {"": torch.full((32, 64), torch.nan)},
    "factors without a rank": {"left.weight": torch.ones(1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_PARTS)
def test_a_bad_part_is_refused_without_being_blown_up(kind, path):
    parts = {f"{UP}:{part}" if part else UP: stored for part, stored in BAD_PARTS[kind].items()}
    rest = {name: t for name, t in pack_model(a_llama(), {}).items() if name != UP}
    written(path, about(), rest | parts)
    tracemalloc.start()  # NumPy's memory; PyTorch's is bounded by the shapes that are checked
    with pytest.raises(ValueError, match="."):
        load_compressed(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_more_tensors_than_the_model_are_refused(path):
    packed = pack_model(a_llama(), {})
    written(path, about(), packed | {"payload": torch.zeros(3)})
    with pytest.raises(ValueError, match="nothing but the model; it has payload"):
        load_compressed(path)
    del packed["norm.weight"]
    written(path, about(), packed)
    with pytest.raises(ValueError, match=r"must hold norm.weight"):
        load_compressed(path)


def test_tensors_are_counted_before_they_are_read(path, monkeypatch):
    monkeypatch.setattr(compressed_file, "MOST_TENSORS", 20)
    written(path, about(), {f"{n}": torch.zeros(1) for n in range(21)})
    with pytest.raises(ValueError, match="at most 20 tensors"):
        load_compressed(path)


def test_a_claim_about_ranks_needs_the_factors(path):
    written(path, about(ranks={UP: 2}))
    with pytest.raises(ValueError, match=r"blocks.0.mlp.up.left.weight"):
        load_compressed(path)


def test_the_file_is_one_of_safetensors(path):
    save_compressed(path, packed_with("linear"), CONFIG)
    assert f"{UP}:codes" in load_file(path)
