"""A decoder with quantized matrices as a GGUF file, which llama.cpp runs.

    write_gguf(path, model, tokenizer, codes)
    llama-cli -m model.gguf -p "In the beginning"      on a command line, with llama.cpp installed

Codes become blocks of 32 neighbours of a row, each with its scale s, and no weight changes:

    Q4_0   4.5 bits a weight   s (q − 8)      symmetric codes of up to 4 bits
    Q4_1   5 bits              s q + m        affine codes of up to 4 bits
    Q8_0   8.5 bits            s q            symmetric codes of 5 to 8 bits

What has no codes stays in float32; a matrix of a float16 model stays in float16.

In an affine grid m is −s z, and GGUF keeps m in float16. The product of a float16 number of 11
digits and a zero-point of 4 seldom is one. So `q4_1_range` fits scales of 7 digits.

The weights are ours, the arithmetic is not: llama.cpp rounds the inputs of matrices of codes to 8
bits in groups of 32, and those of float16 matrices to float16, so its logits differ a little from
those of `Llama`. `acceleration.export.llama_cpp` runs such files.

Source: "GGUF", in the documentation of the project ggml. `models.gguf_file` reads such files.

Axes: O outputs, I inputs, R rows sharing one scale, C numbers in a row, N blocks.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from gguf import GGMLQuantizationType, GGUFWriter
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer
from torch import Tensor

from course_lib.formats.linear import Codes, check_codes
from course_lib.models.llama import Llama
from course_lib.models.pretrained import GGUF_NAMES, PRE_TOKENIZERS, SPECIAL_TOKEN, permute
from course_lib.quantization.calibration import Range, minmax_range
from course_lib.quantization.linear import Format, fit_affine

BLOCK = 32  # weights
DIGITS = 7  # binary, of a scale: with the 4 of a zero-point they make the 11 of float16
NORMAL_TOKEN = 1
# What ends a text: SmolLM2's token, or byte 255, which no text in UTF-8 holds. Without it,
# llama.cpp would take token 11 for the end, whatever that is.
ENDS = ("<|im_end|>", "ÿ")


def q4_1_range(rows: Tensor, format: Format) -> Range:
    """From the least to the largest number, so that a block of Q4_1 can hold the grid exactly.

    The scale of `minmax_range` is rounded to 7 binary digits, that is, by up to 0.8 %.

    Args:
        rows: (R, C), floats.
        format: affine, of up to 4 bits.

    Returns:
        low and high, (R, 1) each: `Scheme(Format(4), 32, q4_1_range)`.

    Raises:
        ValueError: the format is symmetric or has more bits; what `minmax_range` refuses.

    >>> low, high = q4_1_range(torch.tensor([[-1.0, 0.3, 0.9]]), Format(4))
    >>> low.item(), high.item(), (high - low).item() / 15 * 2**9  # 1.9 / 15 · 2⁹ is 64.85
    (-1.015625, 0.888671875, 65.0)
    """
    if format.symmetric or format.bits > 4:
        raise ValueError(f"format must be affine, of up to 4 bits; got {format}")
    low, high = minmax_range(rows)
    scale = fit_affine(low, high, format.bits).scale
    mantissa, exponent = torch.frexp(scale)  # a number from ½ to 1, and a power of 2
    scale = torch.ldexp((mantissa * 2**DIGITS).round(), exponent - DIGITS)
    zero_point = -(low.clamp(max=0) / scale).round()
    return -zero_point * scale, (format.highest - zero_point) * scale


def write_gguf(path: Path, model: Llama, tokenizer: Tokenizer, codes: Mapping[str, Codes]) -> None:
    """Write a decoder and its tokenizer as a GGUF file; one that stands there is replaced.

    `pretrained.read_llama` gives back the model, with just the weights that the codes stand for.

    Args:
        path: of the file; "….gguf" by custom.
        model: an ordinary decoder, tied or not.
        tokenizer: the model's own.
        codes: of matrices, by their names in the model, as `recipes` give them; each row of the
            grid holds 32 neighbouring weights or a multiple of it. The embedding may be among them.

    Raises:
        ValueError: a part of the model does what no Llama does (rounds its inputs, turns them);
            codes name no matrix of the model, have another shape, or fit no kind of block exactly;
            the tokenizer has more tokens than the embedding, or fewer, or is not a byte-level BPE
            of TinyLM's or SmolLM2's kind.

    >>> from tempfile import TemporaryDirectory
    >>> from course_lib.formats.linear import Scheme, nearest_codes
    >>> from course_lib.models.pretrained import read_llama, tiny
    >>> (model, tokenizer), name = tiny(), "embedding.weight"
    >>> codes = nearest_codes(model.embedding.weight, Scheme(Format(4), 32, q4_1_range))
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tiny.gguf"
    ...     write_gguf(path, model, tokenizer, {name: codes})
    ...     read_llama(path)[0].embedding.weight.equal(codes.weight)
    True
    """
    _check(model, tokenizer, codes)
    writer = GGUFWriter(path, "llama")
    _add_settings(writer, model)
    _add_tokenizer(writer, tokenizer)
    heads = {"query": model.config.heads, "key": model.config.kv_heads}
    for name, weight in model.named_parameters():
        kind, rows = None, weight.detach()
        if rows.dim() == 1 or rows.dtype != torch.float16:
            rows = rows.float()
        if name in codes:
            kind, rows = _to_blocks(name, codes[name])
        part = name.split(".")[-2]
        if part in heads:
            rows = permute(rows, heads[part])
        writer.add_tensor(_gguf_name(name), rows.cpu().numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(model: Llama, tokenizer: Tokenizer, codes: Mapping[str, Codes]) -> None:
    if model.config.blocks or model.config.each_head is not None:
        raise ValueError(
            "model must have blocks that are alike, with heads of width D / H; parts of this one "
            "were removed"
        )
    with torch.device("meta"):
        plain = {name: type(module) for name, module in Llama(model.config).named_modules()}
    for name, module in model.named_modules():
        if plain.get(name) is not type(module):
            raise ValueError(
                f"model must have the parts of a Llama and no others; {name} is a "
                f"{type(module).__name__}"
            )
    if tokenizer.get_vocab_size() != model.config.vocabulary:
        raise ValueError(
            f"tokenizer must have the model's {model.config.vocabulary} tokens; "
            f"got {tokenizer.get_vocab_size()}"
        )
    shapes = {name: weight.shape for name, weight in model.named_parameters() if weight.dim() == 2}
    for name, some in codes.items():
        if shapes.get(name) != some.codes.shape:
            raise ValueError(
                f"codes must be of matrices of the model, in their shapes; got {name!r}, "
                f"{tuple(some.codes.shape)}"
            )


def _add_settings(writer: GGUFWriter, model: Llama) -> None:
    config = model.config
    writer.add_context_length(config.context)
    writer.add_vocab_size(config.vocabulary)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.width // config.heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_quantization_version(2)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """As `pretrained.read_llama` makes it again."""
    model, cut = json.loads(tokenizer.to_str())["model"], _state(tokenizer.pre_tokenizer)
    cuts = [name for name, known in PRE_TOKENIZERS.items() if _state(known) == cut]
    numbers = tokenizer.get_vocab()
    ends = [numbers[end] for end in ENDS if end in numbers]
    if model["type"] != "BPE" or not cuts or not ends:
        raise ValueError(
            f"tokenizer must be byte-level BPE that cuts texts as {list(PRE_TOKENIZERS)}; "
            f"got {model['type']} and {cut}"
        )
    tokens = sorted(numbers, key=numbers.get)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cuts[0])
    writer.add_token_list(tokens)
    writer.add_token_types([SPECIAL_TOKEN if t in special else NORMAL_TOKEN for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(ends[0])
    writer.add_add_bos_token(False)


def _state(pre_tokenizer: PreTokenizer | None) -> str:
    """Its settings, as JSON."""
    return pre_tokenizer.__getstate__().decode() if pre_tokenizer else "none"


def _gguf_name(name: str) -> str:
    """ "blocks.7.mlp.up.weight" -> "blk.7.ffn_up.weight"."""
    theirs = {ours: name for name, ours in GGUF_NAMES.items()}
    place, part = "", name.removesuffix(".weight")
    if name.startswith("blocks."):
        _, number, part = part.split(".", maxsplit=2)
        place = f"blk.{number}."
    return f"{place}{theirs[part]}.weight"


def _to_blocks(name: str, codes: Codes) -> tuple[GGMLQuantizationType, Tensor]:
    """The kind of block, and the bytes of each row of the weight, (O, bytes), uint8."""
    check_codes(codes.codes, codes.grid)
    (outputs, inputs), format = codes.codes.shape, codes.grid.format
    each = codes.codes.numel() // len(codes.grid.scale)
    if inputs % BLOCK or each % BLOCK or (not format.symmetric and format.bits > 4):
        raise ValueError(
            f"{name} must have a scale for each {BLOCK} neighbours in a row, or for a multiple of "
            f"it, and symmetric codes or at most 4 bits; got {inputs} a row, {each} a scale, "
            f"{format}"
        )
    blocks = codes.codes.reshape(-1, BLOCK)  # (O, I) -> (N, 32)
    scale, zero_point = (  # (R, 1) -> (N, 1)
        part.repeat_interleave(each // BLOCK, dim=0)
        for part in (codes.grid.scale, codes.grid.zero_point)
    )
    if format.symmetric and format.bits > 4:
        kind, parts = GGMLQuantizationType.Q8_0, [scale.half(), blocks.to(torch.int8)]
    elif format.symmetric:
        kind, parts = GGMLQuantizationType.Q4_0, [scale.half(), _halves(blocks + 8)]
    else:
        minimum = _exact_minimum(name, scale, zero_point)
        kind, parts = GGMLQuantizationType.Q4_1, [scale.half(), minimum, _halves(blocks)]
    stored = [part.contiguous().view(torch.uint8) for part in parts]
    return kind, torch.cat(stored, dim=1).view(outputs, -1)  # (N, bytes) -> (O, bytes)


def _exact_minimum(name: str, scale: Tensor, zero_point: Tensor) -> Tensor:
    """m = −s z in float16, (N, 1)."""
    minimum = -scale * zero_point
    stored = minimum.half()
    if not stored.to(minimum.dtype).equal(minimum):
        raise ValueError(
            f"{name} must have float16 numbers for −s z, or no block of Q4_1 can hold it exactly; "
            "`q4_1_range` makes it so"
        )
    return stored


def _halves(codes: Tensor) -> Tensor:
    """Two codes in a byte, the first 16 in the low halves: (N, 32) -> (N, 16)."""
    low, high = codes.to(torch.uint8).chunk(2, dim=1)
    return low | high << 4
