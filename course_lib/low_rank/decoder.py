"""A decoder whose linear layers are products of two small ones.

Without a text the factors are those of the weights. With one they are those of the layers'
outputs: block by block and stage by stage, each on the inputs that the layers before it, factored
already, now give; or such that it makes up for what they lost, too (`catch_up`). Layers that share
an input share its moments.

Names are those of the weights in the model, "blocks.0.mlp.up.weight".

Axes: B windows, T tokens, N = B · T, O outputs, I inputs.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.low_rank.catch_up import caught_up, drift_of
from course_lib.low_rank.layers import replace_layer, with_factors
from course_lib.low_rank.output_aware import output_factors, output_spectrum
from course_lib.low_rank.svd import Factors, truncated
from course_lib.models.llama import Block, Llama
from course_lib.models.moments import Moments
from course_lib.models.parts import STAGES, linear_weights, record_inputs, walk_blocks
from course_lib.models.walk import Stage, treat_blocks


def layer_shapes(model: Llama) -> dict[str, tuple[int, int]]:
    """Name -> (O, I) of each linear layer of the blocks.

    >>> from course_lib.models.pretrained import tiny
    >>> shapes = layer_shapes(tiny()[0])
    >>> len(shapes), shapes["blocks.0.mlp.up.weight"]
    (28, (512, 192))
    """
    weights = linear_weights(model.blocks)
    return {f"blocks.{name}": (len(w), w.shape[1]) for name, w in weights.items()}


@torch.no_grad()
def factor_decoder(
    model: Llama,
    ranks: Mapping[str, int],
    tokens: Tensor | None = None,
    makes_up: bool = False,
    progress: bool = False,
) -> Llama:
    """A copy of the model in which each named layer is two small ones; the others stay whole.

    Args:
        ranks: name of a weight -> rank, from `budgets`.
        tokens: of a calibration text, (B, T). Without them the factors are best for the weights,
            with them for the layers' outputs on this text: some thousand tokens of it.
        makes_up: whether a layer aims at what the dense model gives, and not at what its own weight
            makes of the inputs that it has now; with tokens only.
        progress: whether a bar shows the blocks; with tokens only.

    Raises:
        ValueError: ranks name no layer of the blocks; a rank beyond min(O, I); tokens do not fit.

    >>> from course_lib.models.pretrained import tiny
    >>> small = factor_decoder(tiny()[0], {"blocks.0.mlp.up.weight": 20}, torch.zeros(1, 5).long())
    >>> small.blocks[0].mlp.up.right
    Linear(in_features=192, out_features=20, bias=False)
    """
    _check_names(model, ranks)
    if tokens is None:
        weights = linear_weights(model)
        factors = {name: truncated(weights[name], rank) for name, rank in ranks.items()}
        return with_factors(model, factors)
    _check_tokens(model, tokens)
    small = copy.deepcopy(model)
    if not makes_up:
        treat_blocks(small, tokens, lambda stage: _factor_stage(stage, ranks), progress=progress)
        return small
    walks = zip(walk_blocks(model, tokens), walk_blocks(small, tokens), strict=True)
    for number, pair in enumerate(tqdm(walks, "blocks", len(small.blocks), disable=not progress)):
        prefix = f"blocks.{number}."
        own = {name.removeprefix(prefix): r for name, r in ranks.items() if name.startswith(prefix)}
        _factor_block(*pair, own)
    return small


def _factor_stage(stage: Stage, ranks: Mapping[str, int]) -> None:
    """In place: layers that share an input, on the inputs that they are given now."""
    for name, weight in zip(stage.names, stage.weight_names, strict=True):
        if weight in ranks:
            dense = stage.block.get_submodule(name).weight
            factors = output_factors(dense, stage.moments.gram, ranks[weight])
            replace_layer(stage.block, name, factors)


Given = tuple[Block, tuple[Tensor, ...]]


def _factor_block(dense: Given, small: Given, ranks: Mapping[str, int]) -> None:
    """In place, `small`: a block that is left whole, and its copy, with what each is given now."""
    (whole, before), (block, now) = dense, small
    recorded = record_inputs(whole, before, [whole.get_submodule(names[0]) for names in STAGES])
    for names, x in zip(STAGES, recorded, strict=True):
        chosen = [name for name in names if f"{name}.weight" in ranks]
        if not chosen:
            continue
        (given,) = record_inputs(block, now, [block.get_submodule(names[0])])  # (N, I)
        wide = torch.promote_types(given.dtype, torch.float32)
        gram = Moments.empty(given.shape[1], wide, given.device).add(given).gram
        drift = drift_of(x, given)
        for name in chosen:
            weight = caught_up(block.get_submodule(name).weight, gram, drift)
            replace_layer(block, name, output_factors(weight, gram, ranks[f"{name}.weight"]))


@torch.no_grad()
def decoder_spectra(model: Llama, tokens: Tensor | None = None) -> dict[str, Tensor]:
    """Singular values of each weight, or with a text those of each layer's outputs.

    Args:
        tokens: of a calibration text, (B, T). With them: roots of the eigenvalues of the mean of
            y yᵀ, over the tokens, of the model as it is.

    Returns:
        Name -> σ_1 ≥ σ_2 ≥ …, (min(O, I),).

    >>> from course_lib.models.pretrained import tiny
    >>> decoder_spectra(tiny()[0])["blocks.0.mlp.up.weight"].shape
    torch.Size([192])
    """
    if tokens is None:
        weights = linear_weights(model.blocks)
        return {f"blocks.{name}": torch.linalg.svdvals(w) for name, w in weights.items()}
    spectra = {}

    def look(stage: Stage) -> None:
        for name, layer in zip(stage.weight_names, stage.layers, strict=True):
            spectra[name] = output_spectrum(layer.weight, stage.moments.gram)

    treat_blocks(model, tokens, look)
    return spectra


@torch.no_grad()
def rank_losses(
    model: Llama,
    ranks: Mapping[str, Sequence[int]],
    tokens: Tensor,
    measure: Callable[[Llama], float],
    progress: bool = False,
) -> dict[str, dict[int, float]]:
    """Factor each layer alone to each of its ranks, and measure the model.

    Args:
        ranks: name -> the ranks to try.
        tokens: of a calibration text, (B, T).
        measure: the loss of a model; one call for each layer and rank.
        progress: whether a bar shows the blocks.

    Returns:
        Name -> rank -> loss.

    Raises:
        ValueError: as for `factor_decoder`.

    >>> from course_lib.models.pretrained import tiny
    >>> ranks, text = {"blocks.0.mlp.up.weight": [20]}, torch.zeros(1, 5).long()
    >>> rank_losses(tiny()[0], ranks, text, lambda m: m.blocks[0].mlp.up.left.in_features)
    {'blocks.0.mlp.up.weight': {20: 20.0}}
    """
    _check_names(model, ranks)
    model, losses = copy.deepcopy(model), {name: {} for name in ranks}

    def look(stage: Stage) -> None:
        for layer, weight in zip(stage.names, stage.weight_names, strict=True):
            dense = stage.block.get_submodule(layer)
            tried = ranks.get(weight, ())
            if tried:  # of one set of factors, the first columns are those of a lower rank
                left, right = output_factors(dense.weight, stage.moments.gram, max(tried))
            for rank in tried:
                replace_layer(stage.block, layer, Factors(left[:, :rank], right[:rank]))
                losses[weight][rank] = float(measure(model))
                stage.block.set_submodule(layer, dense)

    treat_blocks(model, tokens, look, progress=progress)
    return losses


def _check_names(model: Llama, ranks: Mapping[str, object]) -> None:
    if unknown := ranks.keys() - layer_shapes(model).keys():
        raise ValueError(f"ranks must name linear layers of the blocks; got {sorted(unknown)}")


def _check_tokens(model: Llama, tokens: Tensor) -> None:
    context = model.config.context
    if tokens.dim() != 2 or not tokens.numel() or tokens.shape[1] > context:
        raise ValueError(
            f"tokens must have shape (B, T), T at most {context}; got {tuple(tokens.shape)}"
        )
