"""TinyLM's layers one by one: AdaRound beside GPTQ, and what a layer costs at few bits.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware adaround     96 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware sensitivity  130 CPU seconds

Weights have a scale and a zero-point a channel, at the range of the least squared error. Inputs are
those of the float model on 4,096 tokens that TinyLM was trained on; the other text is 4,096 more.
Losses are bits per byte of what the file gives back, on `yardstick.held_out_sample`; "±" is the
standard error, over its 14 stretches of 256 tokens, of the difference to a block's first row.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor
from torch.func import functional_call

from course_lib.formats.linear import Codes, Scheme, nearest_codes
from course_lib.formats.model_file import (
    pack_model,
    quantize_model,
    stored_bytes,
    unpack_model,
)
from course_lib.language_models.gptq import gptq
from course_lib.measure.quality import token_losses
from course_lib.measure.size import size
from course_lib.measure.yardstick import held_out_sample, tiny_calibration
from course_lib.models.llama import Llama
from course_lib.models.moments import Moments, output_error
from course_lib.models.parts import linear_weights, record_inputs
from course_lib.models.pretrained import tiny
from course_lib.pruning.curvature import hutchinson_diagonal
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format
from course_lib.quantization.mixed import exact_bits, greedy_bits, order_bits, total_of
from course_lib.quantization.rounding import adaround
from course_lib.quantization.sensitivity import curvature_costs, measured_costs

BITS = (2, 3, 4, 8)
TEXT, LENGTH, PROBES, GROUPS = 32, 256, 8, 8  # windows, their tokens, probes for each of 8 groups
BYTES = len(held_out_sample().encode())


def scheme(bits: int) -> Scheme:
    """A scale and a zero-point a channel."""
    return Scheme(Format(bits), "channel", mse_range)


class HeldOut:
    """Losses of a file on the held-out text, compared with those of the first file asked."""

    def __init__(self, model: Llama):
        self.model, self.first = model, None
        self.tokens = torch.tensor(tiny()[1].encode(held_out_sample()).ids)

    def of(self, schemes: Mapping[str, Scheme | Codes]) -> str:
        """Bits per byte, and the difference to the first with its standard error."""
        packed = pack_model(self.model, schemes)
        losses = token_losses(unpack_model(packed, self.model), self.tokens).double()
        self.first = losses if self.first is None else self.first
        change = torch.stack([c.sum() for c in (losses - self.first).split(LENGTH)[:-1]])
        unit = math.log(2) * BYTES
        error = change.std() * len(change) ** 0.5 / unit
        return (
            f"{losses.sum() / unit:.4f}  {(losses - self.first).sum() / unit:+.4f} ± {error:.4f}  "
            f"{size(packed).bytes:9,} bytes"
        )


# ---------------------------------------------------------------- AdaRound


def grams(model: Llama, windows: Tensor) -> list[Tensor]:
    """Of the inputs of each linear layer."""
    layers = [model.get_submodule(name.removesuffix(".weight")) for name in linear_weights(model)]
    return [Moments.empty(x.shape[1]).add(x).gram for x in record_inputs(model, windows, layers)]


def chosen_codes(weight: Tensor, gram: Tensor, bits: int) -> dict[str, Codes]:
    """The same grid for all; the first is the peer."""
    nearest = nearest_codes(weight, scheme(bits))
    return {
        "nearest": nearest,
        "GPTQ": gptq(weight, gram, nearest.grid),
        "GPTQ, act order": gptq(weight, gram, nearest.grid, act_order=True),
        "AdaRound": Codes(adaround(weight, gram, nearest.grid), nearest.grid),
    }


def adaround_table() -> None:
    """Errors of the output over those of nearest, on the text that was fitted and on another."""
    model, tokenizer = tiny()
    weights, held_out = linear_weights(model), HeldOut(model)
    fitted, other = (grams(model, tiny_calibration(tokenizer, TEXT)[k::2]) for k in (0, 1))
    for bits in (3, 2):
        print(f"{bits} bits: nearest's share of the output; others over nearest, on other text")
        codes: dict[str, dict[str, Codes]] = {}
        every: dict[str, list[tuple[float, float]]] = {}
        for (name, weight), gram, unseen in zip(weights.items(), fitted, other, strict=True):
            made = chosen_codes(weight.detach(), gram, bits)
            errors = {
                side: [
                    float(output_error(weight.detach() - c.weight, g).sum()) for g in (gram, unseen)
                ]
                for side, c in made.items()
            }
            plain, texts = errors.pop("nearest"), []
            share = plain[1] / float(output_error(weight.detach(), unseen).sum())
            for side, found in errors.items():
                every.setdefault(side, []).append((found[0] / plain[0], found[1] / plain[1]))
                texts.append(f"{side} {found[1] / plain[1]:.3f}")
            print(
                f"  {name.removesuffix('.weight'):26} {share:8.3%}   {'   '.join(texts)}",
                flush=True,
            )
            for side, c in made.items():
                codes.setdefault(side, {})[name] = c
        for side, pairs in every.items():
            here, there = (
                torch.tensor(ratios).log().mean().exp() for ratios in zip(*pairs, strict=True)
            )
            print(f"  {side:16} geometric mean {here:.3f} on the fitted text, {there:.3f} on other")
        held_out.first = None
        for side, of_layers in codes.items():
            print(f"  {side:16} {held_out.of(of_layers)}", flush=True)


# ---------------------------------------------------------------- mixed precision


def window_losses(model: Llama, windows: Tensor) -> Tensor:
    """Mean loss of each window, in nats a token: (B,) float64."""
    logits = torch.cat([model(some) for some in windows[:, :-1].split(8)])  # (B, T − 1, V)
    losses = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    return losses.view(len(windows), -1).double().mean(dim=1)


def measured(model: Llama, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs (L, K) in nats a token, their standard error over windows; all layers at once (K,)."""
    kept = []

    def loss(changed: Llama) -> float:
        kept.append(window_losses(changed, windows))
        return kept[-1].mean().item()

    rounded = {
        name: [nearest_codes(weight.detach(), scheme(n)).weight for n in BITS]
        for name, weight in linear_weights(model).items()
    }
    costs = measured_costs(model, rounded, loss)
    change = torch.stack(kept[1:]) - kept[0]  # (L · K, B)
    every = [quantize_model(model, dict.fromkeys(rounded, scheme(n))) for n in BITS]
    together = torch.stack([window_losses(changed, windows) - kept[0] for changed in every])
    error = change.std(dim=1) / len(windows) ** 0.5
    return costs, error.view_as(costs), together.mean(dim=1)


def traces(model: Llama, windows: Tensor) -> Tensor:
    """tr H of each layer by 8 probes on each of 8 groups of windows: (8, L)."""
    weights = {name: weight.detach() for name, weight in linear_weights(model).items()}
    generator, found = torch.Generator().manual_seed(0), []
    for some in windows.split(len(windows) // GROUPS):

        def loss(of: dict[str, Tensor], some: Tensor = some) -> Tensor:
            logits = functional_call(model, of, (some[:, :-1],))
            return F.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())

        diagonal = hutchinson_diagonal(loss, weights, PROBES, generator)
        found.append(torch.stack([d.double().sum() for d in diagonal.values()]))
    return torch.stack(found)


def cost_table(
    names: Sequence[str], costs: Tensor, error: Tensor, trace: Tensor, by_trace: Tensor
) -> None:
    """What each layer costs, measured and predicted, in thousandths of a nat a token."""
    print(
        "costs in thousandths of a nat a token, measured at 2, 3, 4, 8 bits; predicted at 3; trace"
    )
    for l, name in enumerate(names):  # noqa: E741
        found = "  ".join(
            f"{c * 1e3:7.2f} ± {e * 1e3:4.2f}" for c, e in zip(costs[l], error[l], strict=True)
        )
        mean, spread = trace[:, l].mean(), trace[:, l].std() / len(trace) ** 0.5
        name = name.removesuffix(".weight")
        print(f"  {name:26} {found}   {by_trace[l, 1] * 1e3:6.2f}   {mean:6.1f} ± {spread:.1f}")


def rank_table(costs: Tensor, together: Tensor, by_trace: Tensor) -> None:
    """Do costs add up, and does the trace predict them?"""
    for k, bits in enumerate(BITS):
        total, rank = costs[:, k].sum(), spearmanr(costs[:, k], by_trace[:, k]).statistic
        print(
            f"  {bits} bits: sum of the layers {total:.4f}, all at once {together[k]:.4f}, "
            f"predicted {by_trace[:, k].sum():.4f}, rank correlation {rank:.2f}"
        )


def sensitivity_table() -> None:
    """Costs of single layers; then files of equal bytes with even bits and with mixed ones."""
    model, tokenizer = tiny()
    text, weights = tiny_calibration(tokenizer, TEXT), linear_weights(model)
    names, schemes = list(weights), [scheme(bits) for bits in BITS]
    costs, error, together = measured(model, text)
    trace = traces(model, text)
    counts = torch.tensor([weight.numel() for weight in weights.values()])
    rounding = torch.tensor([
        [(w.detach() - nearest_codes(w.detach(), s).weight).square().sum() for s in schemes]
        for w in weights.values()
    ]).double()  # fmt: skip
    by_trace = curvature_costs(trace.mean(dim=0), counts, rounding)
    cost_table(names, costs, error, trace, by_trace)
    rank_table(costs, together, by_trace)
    sizes = stored_bytes(weights, schemes)

    def chosen(choice: Tensor) -> dict[str, Scheme]:
        return {name: schemes[k] for name, k in zip(names, choice.tolist(), strict=True)}

    even = {bits: torch.full((len(names),), k) for k, bits in enumerate(BITS)}
    held_out, mean_curvature = HeldOut(model), trace.mean(dim=0) / counts
    for low, high in ((2, 3), (3, 3), (3, 4), (4, 4)):
        budget = int(total_of(sizes, even[low]) + total_of(sizes, even[high])) // 2
        print(f"budget: {8 * budget / int(counts.sum()):.3f} bits a weight of the linear layers")
        choices = {
            **({f"even, {low} bits": even[low]} if low == high else {}),
            "exact, measured": exact_bits(costs, sizes, budget),
            "greedy, measured": greedy_bits(costs, sizes, budget),
            "exact, by trace": exact_bits(by_trace, sizes, budget),
            "order, by trace": order_bits(mean_curvature, sizes, budget),
        }
        held_out.first = None
        for side, choice in choices.items():
            used = "/".join(str(int((choice == k).sum())) for k in range(len(BITS)))
            print(
                f"  {side:18} {held_out.of(chosen(choice))}  layers at 2/3/4/8 bits {used:10} "
                f"sum of measured costs {total_of(costs, choice):.4f}", flush=True,
            )  # fmt: skip
        print("  exact, measured:", " ".join(str(BITS[k]) for k in choices["exact, measured"]))
