"""Our models in other people's engines: the same logits, up to what each engine rounds."""

import copy
from importlib.util import find_spec
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.acceleration.export import executorch, llama_cpp, onnx
from course_lib.acceleration.export.plain_form import PlainForm
from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Scheme, nearest_codes
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.pretrained import _smollm2_file, has_smollm2, read_llama, smollm2
from course_lib.quantization.linear import Format

needs_onnx = pytest.mark.skipif(not onnx.has_onnx(), reason="onnxruntime is not installed")
needs_executorch = pytest.mark.skipif(
    not executorch.has_executorch(), reason="executorch is not installed"
)
needs_llama_cpp = pytest.mark.skipif(
    not llama_cpp.has_llama_cpp(), reason="xllamacpp is not installed"
)
# Sums of float32 in another order: 2⁻²⁴ each step, over some hundred steps of random sign.
SAME = 1e-5  # relative to the norm of all logits; measured 3e-7 to 6e-7


def small(tied: bool = True) -> Llama:
    config = LlamaConfig(
        vocabulary=352, width=96, layers=1, heads=6, kv_heads=2, mlp_width=160, context=32,
        rope_base=500.0, norm_epsilon=2.0**-10, tied=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Llama(config).eval().requires_grad_(False)
    initialize(model)
    model.blocks[0].mlp_norm.weight.mul_(torch.rand(96) + 0.5)
    return model


def some_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(352, shape, generator=torch.Generator().manual_seed(1))


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("tied", [True, False])
def test_plain_form_is_the_model(tied):
    model, tokens = small(tied), some_tokens(32)
    assert error(PlainForm(model, 32)(tokens), model(tokens[None])[0]) < SAME
    half = PlainForm(copy.deepcopy(model).half(), 32)(tokens)
    assert half.dtype == torch.float16 and error(half.float(), model(tokens[None])[0]) < 0.01


def test_plain_form_refuses_what_it_cannot_say():
    with pytest.raises(ValueError, match="length must be from 1 to 32; got 33"):
        PlainForm(small(), 33)


@needs_onnx
def test_onnxruntime_has_our_logits_for_any_batch_and_length(tmp_path):
    model = small()
    onnx.export_onnx(model, tmp_path / "small.onnx")
    session = onnx.open_onnx(tmp_path / "small.onnx")
    for shape in ((1, 1), (3, 7), (1, 32)):
        tokens = some_tokens(*shape)
        assert error(onnx.run_onnx(session, tokens), model(tokens)) < SAME, shape
    with pytest.raises(ValueError, match="tokens must have shape"):
        onnx.run_onnx(session, some_tokens(3))
    onnx.quantize_onnx(tmp_path / "small.onnx", tmp_path / "int8.onnx")
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("small", "int8")]
    assert sizes[1] < 0.45 * sizes[0]
    tokens = some_tokens(1, 32)
    found = onnx.run_onnx(onnx.open_onnx(tmp_path / "int8.onnx"), tokens)
    # 0.02 to 0.04 where a processor multiplies int8 exactly (VNNI); elsewhere sums of two products
    # are held in 16 bits, and the largest saturate.
    assert 1e-3 < error(found, model(tokens)) < 0.4


@pytest.mark.parametrize("export", ["onnx", "executorch"])
def test_a_nan_is_not_exported(export, tmp_path):
    model = small()
    model.norm.weight[3] = float("nan")
    with pytest.raises(ValueError, match="norm.weight must be finite"):
        if export == "onnx":
            onnx.export_onnx(model, tmp_path / "x")
        else:
            executorch.export_executorch(model, tmp_path / "x", 4)
    assert not (tmp_path / "x").exists()


# float16 has 11 digits and XNNPACK sums in it: 2⁻¹¹ · √96 is 0.005. int8: half a step of max/127
# for weights and inputs, about 0.01 a layer. Each kind must err, or it is not what it says.
@needs_executorch
@pytest.mark.parametrize(
    "kind, low, high", [("float32", 0, SAME), ("float16", 1e-5, 0.03), ("int8", 1e-3, 0.1)]
)
def test_executorch_has_our_logits(kind, low, high, tmp_path):
    model, tokens, path = small(), some_tokens(16), tmp_path / "small.pte"
    executorch.export_executorch(model, path, 16, kind)
    method = executorch.open_executorch(path)
    found = executorch.run_executorch(method, tokens)
    assert low <= error(found, model(tokens[None])[0]) < high
    with pytest.raises(ValueError, match="tokens must have shape"):
        executorch.run_executorch(method, tokens[:3])


def test_executorch_refuses_another_kind(tmp_path):
    with pytest.raises(ValueError, match="kind must be one of"):
        executorch.export_executorch(small(), tmp_path / "x", 4, "int4")


FOUR, EIGHT = Format(4, symmetric=True), Format(8, symmetric=True)
SCHEMES = {
    "F32": None,
    "F16": None,
    "Q8_0": Scheme(EIGHT, 32),
    "Q4_0": Scheme(FOUR, 32),
    "Q4_1": Scheme(Format(4), 32, q4_1_range),
}


class AsLlamaCpp(nn.Module):
    """A product as llama.cpp computes it: the input is rounded, the weight as its codes say."""

    def __init__(self, weight, kind, codes):
        super().__init__()
        self.weight, self.kind = weight, kind
        minimum = -codes.grid.scale * codes.grid.zero_point  # of each block of a row
        self.minimum = minimum.view(len(weight), -1)

    def forward(self, x):
        blocks = x.unflatten(-1, (-1, 32))
        largest = blocks.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        codes, scale = (blocks * (127 / largest)).round(), largest / 127
        y = F.linear((codes * scale.half().float()).flatten(-2), self.weight)
        if self.kind != "Q4_1":
            return y
        sums = codes.sum(dim=-1) * scale[..., 0]  # of Q8_1, kept in float16, for the m of Q4_1
        exact = codes.sum(dim=-1) * scale[..., 0].half().float()
        return y + F.linear(sums.half().float() - exact, self.minimum)


def as_llama_cpp(model, kind, codes):
    """A copy of the model whose every product rounds as llama.cpp's does."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            made = AsLlamaCpp(layer.weight, kind, codes[f"{name}.weight"])
            model.set_submodule(name, made)
    head = AsLlamaCpp(model.embedding.weight, kind, codes["embedding.weight"])
    return lambda tokens: head(_before_the_head(model, tokens))


def _before_the_head(model, tokens):
    kept = []
    handle = model.norm.register_forward_hook(lambda *args: kept.append(args[2]))
    model(tokens)
    handle.remove()
    return kept[0]


def all_codes(model, scheme):
    matrices = ((name, weight) for name, weight in model.named_parameters() if weight.dim() == 2)
    return {name: nearest_codes(weight, scheme) for name, weight in matrices}


TEXT = "In the beginning God created the heaven and the earth. And the earth was"


@needs_llama_cpp
@pytest.mark.parametrize("kind", SCHEMES)
@torch.no_grad()
def test_llama_cpp_has_our_log_probabilities(kind, tiny, tmp_path):
    """TinyLM, with its own tokenizer. What differs is what llama.cpp is known to round.

    A number on the edge between two codes may fall to either side, and all tokens after it see
    that. So the texts are short, and it is their median that is compared.
    """
    model, tokenizer = tiny
    source, codes = (copy.deepcopy(model).half() if kind == "F16" else model), {}
    if SCHEMES[kind]:
        codes = all_codes(model, SCHEMES[kind])
    write_gguf(tmp_path / "tiny.gguf", source, tokenizer, codes)
    ours, _ = read_llama(tmp_path / "tiny.gguf")
    engine = llama_cpp.LlamaCpp(tmp_path / "tiny.gguf")
    rounded = as_llama_cpp(ours, kind, codes) if codes else ours
    far, unexplained = [], []
    for pair in torch.tensor(tokenizer.encode(TEXT).ids).unfold(0, 2, 1):  # (2,)
        theirs = engine.log_probabilities(pair, 2048)
        for model, errors in ((ours, far), (rounded, unexplained)):
            expected = model(pair[None])[0].log_softmax(-1)
            errors.append((theirs - expected).abs().max().item())
    if kind == "F32":
        assert max(far) < 1e-3  # measured 3e-5
    elif kind == "F16":  # its kernels differ; 2⁻¹¹ of logits of about 20 is 0.01
        assert 1e-4 < median(far) < 0.05  # measured 0.006
    else:
        assert 1e-4 < median(far) < 0.5 and median(unexplained) < 0.1 * median(far)


@needs_llama_cpp
def test_llama_cpp_writes_tinylms_text_and_reads_its_own_clock(tiny, tmp_path):
    model, tokenizer = tiny
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer, all_codes(model, SCHEMES["Q8_0"]))
    tokens = torch.tensor(tokenizer.encode(TEXT).ids)
    written = llama_cpp.LlamaCpp(tmp_path / "tiny.gguf").write(tokens, 20)
    assert written.text == tokenizer.decode(written.tokens.tolist())
    assert written.tokens.shape == written.log_probabilities.shape == (20,)
    assert written.prefill > 0 and written.decode > 0
    ours = read_llama(tmp_path / "tiny.gguf")[0]
    logits = ours(torch.cat([tokens, written.tokens])[None])[0, len(tokens) - 1 : -1]
    assert (logits.argmax(dim=-1) == written.tokens).sum() >= 18  # measured 20


@needs_llama_cpp
def test_llama_cpp_says_what_is_wrong(tiny, tmp_path):
    path = tmp_path / "tiny.gguf"
    with pytest.raises(FileNotFoundError):
        llama_cpp.LlamaCpp(path)
    path.write_bytes(b"GGUF")
    with pytest.raises(RuntimeError):
        llama_cpp.LlamaCpp(path)
    write_gguf(path, *tiny, {})
    engine = llama_cpp.LlamaCpp(path, context=256)
    with pytest.raises(ValueError, match="exceeds the available context"):
        engine.write(torch.zeros(300, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="tokens must have shape"):
        engine.write(torch.zeros(1, 3, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="count must be at least 1"):
        engine.write(torch.zeros(3, dtype=torch.long), 0)


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.skipif(not has_smollm2(), reason="SmolLM2 is not installed")
@torch.no_grad()
def test_llama_cpp_runs_smollm2():
    model, tokenizer = smollm2()
    tokens = torch.tensor(tokenizer.encode("The capital of France is").ids)
    written = llama_cpp.LlamaCpp(_smollm2_file()).write(tokens, 16)
    everything = torch.cat([tokens, written.tokens])
    assert written.text == tokenizer.decode(written.tokens.tolist())
    logits = model(everything[None])[0, len(tokens) - 1 : -1].log_softmax(-1)  # (16, V)
    assert (logits.argmax(dim=-1) == written.tokens).sum() >= 14
    ours = logits.gather(1, written.tokens[:, None])[:, 0]
    assert (ours - written.log_probabilities).abs().median() < 0.2


@pytest.mark.parametrize("module", [onnx, executorch, llama_cpp])
def test_an_engine_that_is_missing_is_only_missing(module, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    (has,) = [value for name, value in vars(module).items() if name.startswith("has_")]
    assert not has() and find_spec("torch")
