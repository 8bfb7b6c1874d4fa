"""The steps of a recipe: each is data, and each calls one method of the course on the whole model.

    DropLayers   whole layers go                          chapter 04
    CutUnits     MLP units go, what stays makes up        chapter 04
    LowRank      each layer becomes two small ones        chapter 09
    Prune        single weights go, and stay away         chapters 03, 11
    Round        layers compute with rounded weights      chapters 05, 07; even and coded: 06
    Quantize     codes are chosen, once for all           chapters 05, 11
    Heal         training, perhaps with the dense model as the teacher   chapters 07, 08
    Restart      the shape stays, all weights are random again: the control

What was rounded can still learn, what was quantized no more. A step is given a state and gives a
new one.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.data.batches import random_windows
from course_lib.data.text import bible_chapters, split
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.formats.even_coded import step_for
from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.formats.model_file import pack_tensors
from course_lib.language_models import recipes
from course_lib.low_rank.budgets import ranks_by_energy
from course_lib.low_rank.decoder import decoder_spectra, factor_decoder, layer_shapes
from course_lib.measure.yardstick import tiny_calibration
from course_lib.models.layers import without_layers
from course_lib.models.llama import Llama, initialize
from course_lib.models.pretrained import tiny
from course_lib.models.tokenizer import tokens_of
from course_lib.models.training import make_optimizers, rate_factor
from course_lib.pipeline.state import State, ranks_of
from course_lib.pruning.adaptive import highest_units
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.depth import influence_order, layers_off
from course_lib.pruning.group_scores import mlp_scores
from course_lib.pruning.masks import apply_masks, hold_masks, magnitude_masks
from course_lib.quantization.aware import AwareLinear, aware_layers, aware_model
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.even_steps import EvenSteps
from course_lib.quantization.linear import Format
from course_lib.quantization.roundings import LearnedStep

WINDOWS, LENGTH = 4, 128  # of a training step
SHIFT = 1_000_003  # between the draws of two seeds
SPARSE = {"wanda": recipes.wanda_model, "sparsegpt": recipes.sparsegpt_model}
CODED = {"gptq": recipes.gptq_model, "awq": recipes.awq_model}


@dataclass(frozen=True, eq=False)
class Given:
    """What every step may use: the dense model, and text that it was trained on.

    dense: the teacher, and where a recipe begins.
    tokenizer: the dense model's.
    text: tokens, (N,), to train with.
    calibration: tokens, (B, T), to measure inputs of layers with.
    """

    dense: Llama
    tokenizer: Tokenizer
    text: Tensor
    calibration: Tensor


def tiny_given() -> Given:
    """TinyLM, and the chapters that it was trained on.

    >>> tiny_given().calibration.shape
    torch.Size([32, 256])
    """
    dense, tokenizer = tiny()
    text = tokens_of(tokenizer, split(bible_chapters("kjv"))[0])
    return Given(dense, tokenizer, text, tiny_calibration(tokenizer))


@dataclass(frozen=True)
class DropLayers:
    """The layers of least influence go: `count` of them.

    Source: Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect".
    """

    count: int

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_plain(state, self)
        order = influence_order(state.model, given.calibration)
        off = layers_off(order[: self.count], len(order))
        return State(without_layers(state.model, off), state.stored, trained=state.trained)


@dataclass(frozen=True)
class CutUnits:
    """A share `keep` of each MLP's units stays, those that matter most to its output."""

    keep: float

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_plain(state, self)
        text = given.calibration
        scores = mlp_scores(state.model, text[:, :-1], text[:, 1:])["output error"]
        masks = highest_units(scores, [self.keep] * len(scores))
        return State(shrink_mlps(state.model, masks, text), state.stored, trained=state.trained)


@dataclass(frozen=True)
class LowRank:
    """The layers of the blocks keep a share of their numbers, as products of two matrices."""

    keep: float

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_plain(state, self)
        shapes = layer_shapes(state.model)
        budget = int(self.keep * sum(o * i for o, i in shapes.values()))
        spectra = decoder_spectra(state.model, given.calibration)
        shares = {name: spectrum / spectrum.norm() for name, spectrum in spectra.items()}
        ranks = ranks_by_energy(shares, shapes, budget)
        model = factor_decoder(state.model, ranks, given.calibration)
        return State(model, state.stored, trained=state.trained)


@dataclass(frozen=True)
class Prune:
    """A share `density` of the blocks' weights stays; the others are zero from now on."""

    density: float
    method: Literal["magnitude", "wanda", "sparsegpt"] = "magnitude"

    def __post_init__(self):
        _check_among("method", self.method, ("magnitude", *SPARSE))

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_open(state, self)
        if self.method == "magnitude":
            model = copy.deepcopy(state.model)
            weights = _block_weights(model)
            zeros = {n: ~m for n, m in magnitude_masks(weights, self.density).items()}
            with torch.no_grad():
                apply_masks(weights, {name: ~gone for name, gone in zeros.items()})
        else:
            _check_plain(state, self)
            model = SPARSE[self.method](state.model, given.calibration, self.density)
            zeros = {name: weight == 0 for name, weight in _block_weights(model).items()}
        return State(model, state.stored, {**state.zeros, **zeros}, state.trained)


@dataclass(frozen=True)
class Round:
    """The blocks compute with rounded weights from now on, and can learn to live with them.

    bits: a weight. Each row has 2ⁿ levels at a distance that is learned; or, coded, all layers have
        the same even levels, as far apart as leaves so many bits after Huffman's code.
    """

    bits: float
    coded: bool = False

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_open(state, self)
        if aware_layers(state.model):
            raise ValueError("Round must come once; the model rounds its weights already")
        if self.coded:
            step = step_for(list(_block_weights(state.model).values()), self.bits)
            model = aware_model(state.model, lambda _: EvenSteps(step))
        elif self.bits == int(self.bits):
            model = aware_model(state.model, partial(LearnedStep, format=Format(int(self.bits))))
        else:
            raise ValueError(f"bits must be whole where levels are not coded; got {self.bits}")
        return State(model.requires_grad_(False), state.stored, state.zeros, state.trained)


@dataclass(frozen=True)
class Quantize:
    """Codes of `bits` bits, a scale for each group (each row if it is None), chosen once for all.

    part: "blocks" or "embedding"; the embedding knows "nearest" alone.
    """

    bits: int
    group: int | None = None
    method: Literal["nearest", "gptq", "awq"] = "nearest"
    part: Literal["blocks", "embedding"] = "blocks"

    def __post_init__(self):
        _check_among("part", self.part, ("blocks", "embedding"))
        known = ("nearest", *CODED) if self.part == "blocks" else ("nearest",)
        _check_among("method", self.method, known)

    def __call__(self, state: State, given: Given, seed: int) -> State:
        scheme = Scheme(Format(self.bits), self.group or "channel", mse_range)
        model = copy.deepcopy(state.model)
        if self.part == "embedding":
            weights = {"embedding.weight": model.embedding.weight}
        else:
            _check_open(state, self)
            weights = _block_weights(model)
        if self.method == "nearest":
            codes = {name: nearest_codes(weight, scheme) for name, weight in weights.items()}
        else:
            _check_plain(state, self)
            model, codes = CODED[self.method](state.model, given.calibration, scheme)
        return _with_codes(state, model, codes)


@dataclass(frozen=True)
class Heal:
    """Training, `steps` steps of 512 tokens; zeros stay zero, and what is stored stays.

    rate: a share of the learning rate that TinyLM was trained with.
    teacher: whether the dense model's answers are learned from, and not the text.
    """

    steps: int
    rate: float = 0.1
    teacher: bool = True

    def __call__(self, state: State, given: Given, seed: int) -> State:
        model = copy.deepcopy(state.model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in state.stored_names)
        optimizers = make_optimizers(model)
        weights = dict(model.named_parameters())
        keep = {name: ~gone for name, gone in state.zeros.items()}
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p.requires_grad]
            hold_masks(optimizer, weights, keep)
        dice = torch.Generator().manual_seed(seed * SHIFT + state.trained)
        batches = [random_windows(given.text, WINDOWS, LENGTH, dice) for _ in range(self.steps)]
        distill(
            model, batches, _loss, optimizers, given.dense if self.teacher else None,
            lambda step: self.rate * rate_factor(step, self.steps),
        )  # fmt: skip
        model.eval().requires_grad_(False)
        return State(model, state.stored, state.zeros, state.trained + self.steps)


@dataclass(frozen=True)
class Restart:
    """All weights are random again: what is left of the steps before is the model's shape."""

    def __call__(self, state: State, given: Given, seed: int) -> State:
        _check_plain(state, self)
        if state.stored:
            raise ValueError("Restart must come before anything is stored; the embedding is")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Llama(state.model.config)
            initialize(model)
        return State(model.eval().requires_grad_(False), trained=state.trained)


Step = DropLayers | CutUnits | LowRank | Prune | Round | Quantize | Heal | Restart


def _loss(student: Tensor, teacher: Tensor | None, targets: Tensor) -> Tensor:
    if teacher is not None:
        return soft_target_loss(student, teacher)
    return F.cross_entropy(student.flatten(0, 1), targets.flatten())


def _block_weights(model: Llama) -> dict[str, nn.Parameter]:
    """The weights of the blocks' linear layers, those that round included, by name."""
    kinds = (nn.Linear, AwareLinear)
    return {
        f"{name}.weight": part.weight for name, part in model.named_modules() if type(part) in kinds
    }


def _with_codes(state: State, model: Llama, codes: dict[str, Codes]) -> State:
    """The state whose named weights are these codes, in the model and in the file."""
    parts: dict[str, Tensor] = {}
    for name, chosen in codes.items():
        weight = model.get_parameter(name)
        with torch.no_grad():
            weight.copy_(chosen.weight)
        parts |= pack_tensors({name: weight}, {name: chosen})
    zeros = {name: gone for name, gone in state.zeros.items() if name not in codes}
    return State(model, {**state.stored, **parts}, zeros, state.trained)


def _check_among(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(known)}; got {value!r}")


def _check_plain(state: State, step: object) -> None:
    """Raise unless the blocks are dense, unrounded and open."""
    _check_open(state, step)
    if aware_layers(state.model) or ranks_of(state.model):
        raise ValueError(f"{type(step).__name__} must come before the steps that round or factor")


def _check_open(state: State, step: object) -> None:
    """Raise if the blocks' codes are chosen already."""
    if state.stored_names - {"embedding.weight"}:
        raise ValueError(f"{type(step).__name__} must come before the codes are chosen")
