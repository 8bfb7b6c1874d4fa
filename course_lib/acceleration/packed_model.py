"""A decoder that computes with its packed weights, and never makes the large ones again.

`formats.model_file.quantize_model` gives back ordinary floats: a model as good as the file, and as
slow as before. `packed_model` takes the same schemes, and puts a layer of `kernels` in the place of
each linear layer that they name. The rest stays as it is: what those layers are given is rounded to
bfloat16 at their door, and so is what they give, no more. An 8-bit head rounds no logit.

For speed, call `fast_model`: it joins matrices that read the same input, and packs them.

A tied embedding that a scheme names keeps one set of codes for both of its uses: a row of them is
looked up for a token, all of them are multiplied for the logits.

Axes: T tokens, D model width, V vocabulary.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from course_lib.acceleration.fusion import join_model
from course_lib.acceleration.kernels import (
    Int4WeightLinear,
    Int8HeadLinear,
    Int8Linear,
    Int8WeightLinear,
)
from course_lib.formats.linear import Codes, Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear
from course_lib.models.llama import Llama

EMBEDDING = "embedding.weight"
ROWS = Scheme(Format(8, symmetric=True), "channel")
HEADS = EMBEDDING, "head.weight"  # the first one if it is tied


class PackedEmbedding(nn.Module):
    """Rows of a packed head, looked up: the codes of a token's row times their scale.

    Args:
        head: with the codes (V, D) and the scales (V,), which this shares.
        dtype: of the rows that it gives.
    """

    def __init__(self, head: Int8HeadLinear, dtype: torch.dtype):
        super().__init__()
        self.head, self.dtype = head, dtype

    def forward(self, tokens: Tensor) -> Tensor:
        """(…) -> (…, D)."""
        scale = self.head.scale[tokens][..., None]  # (…, 1)
        return self.head.codes[tokens].to(self.dtype) * scale.to(self.dtype)


@torch.no_grad()
def packed_model(
    model: Llama,
    schemes: Mapping[str, Scheme | Codes],
    both_sides: bool = False,
    native: bool = True,
) -> Llama:
    """A copy of a decoder whose named weights stay packed while it computes.

    Args:
        model: left as it is.
        schemes: names of linear weights, and of the tied embedding, as `every_linear` gives them ->
            how each is stored, or codes that a method chose. At most 4 bits in groups go to
            `Int4WeightLinear`; symmetric ones with a scale an output to `Int8WeightLinear`.
        both_sides: the latter go to `Int8Linear` instead, all but the embedding.
        native: False: floats, even where there are kernels.

    Returns:
        A decoder; `generate` and all else that calls it goes on as before. Where a scheme was named
        it has no `weight` to ask for, and its `state_dict` holds none.

    Raises:
        ValueError: a name of no linear layer; the embedding, where it is not tied, or with a scheme
            that is not symmetric with a scale an output; what the layers refuse.

    Source: Dettmers et al., 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at
    Scale" (both sides); Frantar et al., 2023, "GPTQ" (weights alone, for speed at batch 1).

    >>> from course_lib.formats.linear import Format
    >>> from course_lib.formats.model_file import every_linear
    >>> from course_lib.models.pretrained import tiny
    >>> model, tokenizer = tiny()
    >>> small = packed_model(model, every_linear(model, Scheme(Format(4), 64)))
    >>> small(torch.tensor([[1, 2, 3]])).shape, type(small.blocks[0].mlp.up).__name__
    (torch.Size([1, 3, 2048]), 'Int4WeightLinear')
    """
    made: dict[int, nn.Module] = {}  # id of a module -> what the copy has in its place
    for name, scheme in schemes.items():
        module = model.get_submodule(name.removesuffix(".weight"))
        if not isinstance(module, nn.Linear) and not (name == EMBEDDING and model.config.tied):
            raise ValueError(f"schemes must name linear weights or a tied embedding; got {name}")
        codes = scheme if isinstance(scheme, Codes) else nearest_codes(module.weight, scheme)
        if name == EMBEDDING and not _has_rows(codes):
            raise ValueError("a tied embedding must be symmetric, with a scale a token's row")
        bias = getattr(module, "bias", None)
        eight = Int8HeadLinear if name in HEADS else Int8Linear if both_sides else Int8WeightLinear
        kind = eight if _has_rows(codes) else Int4WeightLinear
        made[id(module)] = kind(codes, bias, native=native)
    small = copy.deepcopy(model, made)  # takes what was made, and copies the rest
    if EMBEDDING in schemes:
        small.config = replace(model.config, tied=False)
        small.head = small.embedding
        small.embedding = PackedEmbedding(small.head, model.embedding.weight.dtype)
    return small


def _has_rows(codes: Codes) -> bool:
    """Whether codes are symmetric, and each output has one scale."""
    return codes.grid.format.symmetric and len(codes.grid.scale) == len(codes.codes)


def fast_schemes(model: Llama, scheme: Scheme) -> dict[str, Scheme]:
    """`scheme` for each linear weight of the blocks, and 8 bits a row for the head, tied or not.

    >>> from course_lib.formats.linear import Format
    >>> from course_lib.models.pretrained import tiny
    >>> schemes = fast_schemes(tiny()[0], Scheme(Format(4), 64))
    >>> len(schemes), schemes["embedding.weight"].format.bits
    (29, 8)
    """
    head = HEADS[0 if model.config.tied else 1]
    return every_linear(model, scheme) | {head: ROWS}


def fast_model(model: Llama, scheme: Scheme) -> Llama:
    """A copy of a decoder that writes fast at batch 1: matrices joined, then packed.

    Its weights are those of `quantize_model(model, fast_schemes(model, scheme))`. Its logits differ
    from that twin's by what bfloat16 rounds at 120 doors, so a text goes another way only where the
    twin's two best tokens are nearly as good.

    Args:
        model: left as it is.
        scheme: of the blocks' linear layers; 4 bits in groups are the fastest.

    >>> from course_lib.formats.linear import Format
    >>> from course_lib.models.pretrained import tiny
    >>> fast_model(tiny()[0], Scheme(Format(4), 64)).blocks[0].mlp.joined
    Int4WeightLinear(192, 1024, native=True)
    """
    joined = join_model(model)
    return packed_model(joined, fast_schemes(joined, scheme))


def packed_bytes(model: nn.Module) -> int:
    """Bytes of all that a model holds: parameters and buffers, each once.

    >>> packed_bytes(nn.Linear(3, 2))
    32
    """
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
