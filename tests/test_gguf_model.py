"""GGUF files of our models: the same weights bit for bit, read by us and by the package `gguf`."""

import copy
import json
import struct
from dataclasses import replace

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, models, pre_tokenizers

from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.recipes import awq_model, gptq_model, nearest_model
from course_lib.language_models.rotation import random_hadamard, rotated
from course_lib.measure.quality import token_losses
from course_lib.measure.yardstick import tiny_calibration
from course_lib.models.gguf_file import read_gguf
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.pretrained import _smollm2_file, read_llama
from course_lib.pruning.decoder import shrink_heads
from course_lib.quantization.calibration import minmax_range
from course_lib.quantization.linear import Format, Grid

FOUR, EIGHT = Format(4, symmetric=True), Format(8, symmetric=True)
# kind of block, its bytes, and a scheme that becomes it
BLOCKS = [
    ("Q4_0", 18, Scheme(FOUR, 32)),
    ("Q4_0", 18, Scheme(FOUR, 96)),
    ("Q4_0", 18, Scheme(FOUR, "channel")),
    ("Q4_0", 18, Scheme(Format(2, symmetric=True), 32)),
    ("Q4_1", 20, Scheme(Format(4), 96, q4_1_range)),
    ("Q4_1", 20, Scheme(Format(4), "tensor", q4_1_range)),
    ("Q4_1", 20, Scheme(Format(3), 32, q4_1_range)),
    ("Q8_0", 34, Scheme(EIGHT, 32)),
    ("Q8_0", 34, Scheme(EIGHT, "channel")),
]


def matrices(model):
    return {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}


def with_weights(model, codes):
    """A copy that has the weights that the codes stand for."""
    model = copy.deepcopy(model)
    for name, some in codes.items():
        model.get_parameter(name).data.copy_(some.weight)
    return model


def assert_same(one, other):
    epsilon = struct.unpack("f", struct.pack("f", other.config.norm_epsilon))  # it is a float32
    assert one.config == replace(other.config, norm_epsilon=epsilon[0])
    found, expected = one.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.fixture
def small():
    """Every dimension differs from the others, and each is a multiple of 32."""
    config = LlamaConfig(
        vocabulary=352, width=192, layers=2, heads=6, kv_heads=3, mlp_width=288, context=16,
        rope_base=500.0, norm_epsilon=2.0**-10,
    )  # fmt: skip
    model = Llama(config).eval().requires_grad_(False)
    initialize(model)
    model.blocks[1].mlp_norm.weight.mul_(torch.rand(192))
    return model


@pytest.fixture
def tokens_of_352(tiny):
    """A tokenizer with as many tokens as `small`."""
    state = json.loads(tiny[1].to_str())
    state["model"]["vocab"] = {t: i for t, i in state["model"]["vocab"].items() if i < 352}
    state["model"]["merges"] = state["model"]["merges"][: 352 - 256]
    return Tokenizer.from_str(json.dumps(state))


@pytest.mark.parametrize("kind, count, scheme", BLOCKS)
def test_weights_are_those_of_the_codes(kind, count, scheme, small, tokens_of_352, tmp_path):
    codes = {name: nearest_codes(weight, scheme) for name, weight in matrices(small).items()}
    write_gguf(tmp_path / "small.gguf", small, tokens_of_352, codes)
    model, tokenizer = read_llama(tmp_path / "small.gguf")
    assert_same(model, with_weights(small, codes))
    assert tokenizer.get_vocab() == tokens_of_352.get_vocab()
    _, weights = read_gguf(tmp_path / "small.gguf")
    for tensor in GGUFReader(tmp_path / "small.gguf").tensors:
        theirs = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(theirs, weights[tensor.name]), tensor.name
        matrix = len(tensor.shape) == 2
        assert tensor.tensor_type.name == (kind if matrix else "F32")
        assert tensor.n_bytes == tensor.n_elements * (count / 32 if matrix else 4)


def test_what_has_no_codes_stays_as_it_is(small, tokens_of_352, tmp_path):
    write_gguf(tmp_path / "small.gguf", small, tokens_of_352, {})
    assert_same(read_llama(tmp_path / "small.gguf")[0], small)
    assert (tmp_path / "small.gguf").stat().st_size >= 4 * sum(
        w.numel() for w in small.parameters()
    )


def test_a_float16_model_keeps_its_matrices_in_float16(small, tokens_of_352, tmp_path):
    half = copy.deepcopy(small).half()
    write_gguf(tmp_path / "half.gguf", half, tokens_of_352, {})
    assert_same(read_llama(tmp_path / "half.gguf")[0], copy.deepcopy(half).float())
    for tensor in GGUFReader(tmp_path / "half.gguf").tensors:
        assert tensor.tensor_type.name == ("F16" if len(tensor.shape) == 2 else "F32")
    broad = copy.deepcopy(small).bfloat16()  # has no kind here: float32 holds it exactly
    write_gguf(tmp_path / "half.gguf", broad, tokens_of_352, {})
    assert_same(read_llama(tmp_path / "half.gguf")[0], broad.float())


def test_gptq_and_awq_are_what_the_file_gives_back(tiny, tmp_path):
    model, tokenizer = tiny
    windows, path = tiny_calibration(tokenizer, 2), tmp_path / "tiny.gguf"
    symmetric, affine = Scheme(FOUR, 32), Scheme(Format(4), 32, q4_1_range)
    for made, codes in (
        gptq_model(model, windows, affine, act_order=True),
        gptq_model(model, windows, affine, static_groups=False),
        awq_model(model, windows, symmetric),
    ):
        embedding = {"embedding.weight": nearest_codes(made.embedding.weight, Scheme(EIGHT, 32))}
        write_gguf(path, made, tokenizer, codes | embedding)
        expected, found = with_weights(made, embedding), read_llama(path)[0]
        assert_same(found, expected)
        text = windows[0, :129]
        assert token_losses(found, text, 64).equal(token_losses(expected, text, 64))
        assert path.stat().st_size < 1.48e6


def test_a_rotated_model_has_a_head_of_its_own(tiny, tmp_path):
    model, tokenizer = tiny
    turned = rotated(model, random_hadamard(192, torch.Generator().manual_seed(0)))
    made, codes = nearest_model(turned, Scheme(FOUR, 32))
    write_gguf(tmp_path / "turned.gguf", made, tokenizer, codes)
    found, _ = read_llama(tmp_path / "turned.gguf")
    assert not found.config.tied
    assert_same(found, made)


def test_a_file_is_replaced(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"x" * 10_000_000)
    write_gguf(path, *tiny, {})
    assert path.stat().st_size < 9e6
    assert_same(read_llama(path)[0], tiny[0])


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_the_tokenizer_comes_back(name, request, small, tmp_path):
    _, tokenizer = request.getfixturevalue(name)
    config = LlamaConfig(tokenizer.get_vocab_size(), 32, 1, 1, 1, 32, 16)
    write_gguf(tmp_path / "any.gguf", Llama(config), tokenizer, {})
    _, found = read_llama(tmp_path / "any.gguf")
    for text in ("Zoë paid 1,234 € — 语言模型\n\n\tthe end's", "<|im_start|>user\nI'll <b>"):
        assert found.encode(text).ids == tokenizer.encode(text).ids


def test_settings_are_those_that_smollm2_came_with(smollm2, tmp_path):
    """All but its name, licence and chat template, and the tokens that nothing here asks for."""
    model, tokenizer = smollm2
    source, weights = read_gguf(_smollm2_file())
    codes = {"embedding.weight": nearest_codes(model.embedding.weight, Scheme(EIGHT, 32))}
    write_gguf(tmp_path / "smollm2.gguf", model, tokenizer, codes)
    settings, found = read_gguf(tmp_path / "smollm2.gguf")
    assert settings.pop("llama.context_length") == 2048
    assert settings.items() <= source.items()
    assert {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "llama.rope.freq_base"} <= set(
        settings
    )
    assert found.keys() == weights.keys()
    for name, weight in weights.items():  # the embedding finds its old codes of 8 bits again
        assert torch.equal(found[name], weight), name


def test_without_a_token_that_ends_a_text_byte_255_does(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", *tiny, {})
    settings, _ = read_gguf(tmp_path / "tiny.gguf")
    end = settings["tokenizer.ggml.eos_token_id"]
    assert tiny[1].id_to_token(end) == "ÿ" and "�" in tiny[1].decode([end])


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1.0, 1e3])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_q4_1_range_makes_minimums_exact(bits, factor):
    rows = torch.randn(500, 32) * torch.logspace(-2, 1, 500)[:, None] * factor
    rows[0], rows[1], rows[2, 3] = 0, rows[1].abs() + 2 * factor, 60 * factor
    rows[3] = -rows[3].abs() - factor
    codes = nearest_codes(rows, Scheme(Format(bits), "channel", q4_1_range))
    minimum = -codes.grid.scale * codes.grid.zero_point
    assert minimum.half().float().equal(minimum)
    wide = codes.grid.scale > 2**-14  # where float16 has all its digits
    exact = nearest_codes(rows, Scheme(Format(bits), "channel", minmax_range)).grid.scale
    assert ((codes.grid.scale / exact)[wide] - 1).abs().le(2**-7 + 2**-10).all()
    assert ((codes.weight - rows).abs() <= 0.63 * exact)[wide[:, 0]].all()


def test_bad_input_is_refused(small, tokens_of_352, tiny, tmp_path):
    path, name = tmp_path / "no.gguf", "blocks.1.mlp.up.weight"
    weight = small.get_parameter(name)

    def refused(says, codes=None, model=small, tokenizer=tokens_of_352):
        with pytest.raises(ValueError, match=says):
            write_gguf(path, model, tokenizer, codes or {})
        assert not path.exists()

    def coded(*scheme):
        return {name: nearest_codes(weight, Scheme(*scheme))}

    good = coded(FOUR, 32)[name]
    refused(r"blocks.1.mlp.up.weight must have float16 numbers for −s z", coded(Format(4), 32))
    refused("symmetric codes or at most 4 bits.*bits=8", coded(Format(8), 32))
    refused("192 a row, 16 a scale", coded(FOUR, 16))
    refused("192 a row, 48 a scale", coded(FOUR, 48))
    refused("codes must be of matrices of the model.*'w'", {"w": good})
    norm = Codes(torch.ones(192, dtype=torch.int8), Grid(torch.ones(1, 1), torch.zeros(1, 1), FOUR))
    refused(r"matrices of the model.*'norm.weight', \(192,\)", {"norm.weight": norm})
    refused(r"\(288, 192\)", {"blocks.1.mlp.down.weight": good})
    refused("scale must hold float16", {name: Codes(good.codes, Grid(good.grid.scale * 1.0001, *
            (good.grid.zero_point, FOUR)))})  # fmt: skip
    refused("blocks.0.attention.query is a InputQuantized", model=quantized_inputs(small, 8))
    turn = torch.eye(288), torch.eye(192)
    refused("blocks.0.mlp is a TurnedMLP", model=rotated(small, turn[1], turn[0]))
    fewer = shrink_heads(small, [torch.arange(small.config.heads) > 0] * small.config.layers)
    refused("blocks that are alike, with heads of width D / H", model=fewer)
    refused("352 tokens; got 2048", tokenizer=tiny[1])
    other = Tokenizer.from_str(tokens_of_352.to_str())
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    refused("byte-level BPE that cuts texts as .*smollm.*got BPE and .*Whitespace", tokenizer=other)
    other.pre_tokenizer = None
    refused("got BPE and none", tokenizer=other)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(352)}))
    refused("got WordLevel and none", tokenizer=words)
    for format in (FOUR, Format(8)):
        with pytest.raises(ValueError, match="format must be affine, of up to 4 bits"):
            q4_1_range(weight, format)


def test_a_file_of_another_kind_is_refused(small, tokens_of_352, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(path, small, tokens_of_352, {})
    for one, other in (
        (b"gpt-2", b"gpt-4"),
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lLama"),
    ):
        (tmp_path / "other.gguf").write_bytes(path.read_bytes().replace(one, other))
        with pytest.raises(ValueError, match="other.gguf must hold a llama whose tokenizer"):
            read_llama(tmp_path / "other.gguf")
