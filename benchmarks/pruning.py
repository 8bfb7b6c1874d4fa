"""Pruning: this library beside PyTorch's pruning, torch.topk and the authors' hard-concrete layer;
what the scores of all weights cost beside a backward pass.

    OMP_NUM_THREADS=1 python -m benchmarks.pruning                  all, or some by their names:
    OMP_NUM_THREADS=1 python -m benchmarks.pruning top gates        magnitude, scores, probes, obs

Times are CPU seconds; the sides take turns, the figure is the median of 7, for Optimal Brain
Surgeon that of one run. Extra memory is the growth of a fresh process's peak during one call.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import prune

from benchmarks.measuring import cpu_seconds, extra_bytes, in_a_fresh_process, report, run_tables
from course_lib.data.images import digits
from course_lib.models.digits_mlp import DigitsMLP
from course_lib.models.parts import prunable_weights
from course_lib.models.pretrained import tiny
from course_lib.models.selection import largest_masks
from course_lib.models.training import next_token_loss
from course_lib.pruning.curvature import hutchinson_diagonal
from course_lib.pruning.evidence import collect_evidence
from course_lib.pruning.hard_concrete import L0Linear
from course_lib.pruning.masks import magnitude_pruned
from course_lib.pruning.obs import damped_inverse, layer_hessian, obs_prune
from course_lib.pruning.scores import gradient_magnitude, saliency, snip, taylor

# ---------------------------------------------------------------- 90 % of 47.8 million weights


def large_model() -> nn.Module:
    """The linear layers of a Llama of 12 layers, D = 576, F = 1536, all heads with own keys."""
    torch.manual_seed(0)
    shapes = [(576, 576)] * 4 + [(576, 1536)] * 2 + [(1536, 576)]
    return nn.Sequential(*(nn.Linear(i, o, bias=False) for _ in range(12) for i, o in shapes))


def prune_ours(model: nn.Module) -> nn.Module:
    """A pruned copy, by this library."""
    return magnitude_pruned(model, density=0.1)


def prune_peer(model: nn.Module) -> nn.Module:
    """A pruned copy, by torch.nn.utils.prune."""
    model = copy.deepcopy(model)
    layers = [(layer, "weight") for layer in model]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.9)
    for layer, name in layers:
        prune.remove(layer, name)
    return model


def extra_memory(function: Callable) -> int:
    """By how many bytes the peak memory grows while `function` prunes the large model."""
    model = large_model()
    function(nn.Sequential(nn.Linear(2, 2)))  # loads what is loaded once
    return extra_bytes(function, model)


def magnitude_table() -> None:
    """CPU time, extra memory and the weights that are kept."""
    model = large_model()
    total = sum(w.numel() for w in prunable_weights(model).values())
    ours, peer = (prunable_weights(f(model)) for f in (prune_ours, prune_peer))
    assert sum(int((w != 0).sum()) for w in ours.values()) == round(0.1 * total)
    differ = sum(int((a != b).sum()) for a, b in zip(ours.values(), peer.values(), strict=True))
    kept = [sum(float(w.abs().sum()) for w in side.values()) for side in (ours, peer)]
    sides = {"course_lib": prune_ours, "global_unstructured, remove": prune_peer}
    seconds = cpu_seconds({n: lambda f=f: f(model) for n, f in sides.items()}, repeats=5)
    report(
        f"10 % of {total:,} weights, copy included; {differ} weights differ",
        seconds,
        0.08,
        method="global magnitude",
        quality=kept,
        unit="kept, Σ |w|",
        memory=[in_a_fresh_process(extra_memory, f) for f in sides.values()],
        memory_goal=0.25,
    )


def top_k_table() -> None:
    """The top tenth of a 4096 × 4096 weight with heavy tails."""
    torch.manual_seed(0)
    gains = torch.randn(4096, 1).mul(0.3).exp()
    weight = torch.distributions.StudentT(5.0).sample((4096, 4096)) * 0.02 * gains
    k = weight.numel() // 10
    sides = {
        "course_lib, a mask": lambda: largest_masks({"w": weight}, k),
        "torch.topk, indices": lambda: weight.abs().flatten().topk(k),
    }
    ours, theirs = (side() for side in sides.values())
    flat = weight.abs().flatten()
    kept = [flat[mask].sum() for mask in (ours["w"].flatten().bool(), theirs.indices)]
    told = {"method": "the k largest", "quality": kept, "unit": "kept, Σ |w|"}
    report("top 10 % of 4096 × 4096", cpu_seconds(sides), 0.6, **told)


# ---------------------------------------------------------------- hard concrete, 1024 × 1024


class PaperL0Linear(nn.Module):
    """The layer as the paper's formulas state it: gates multiply the rows of W (inputs, O)."""

    def __init__(self, inputs: int, outputs: int, gate: str):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        shape = (inputs, 1) if gate == "input" else (inputs, outputs)
        self.log_alpha = nn.Parameter(torch.randn(shape) * 0.01 + 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = torch.empty_like(self.log_alpha).uniform_(1e-6, 1 - 1e-6)
        s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + self.log_alpha) / (2 / 3))
        z = torch.clamp(s * (1.1 - -0.1) + -0.1, min=0, max=1)
        return x.mm(self.weight * z) + self.bias

    def expected_l0(self) -> torch.Tensor:
        shift = 2 / 3 * torch.log(torch.tensor(0.1 / 1.1))
        return torch.sigmoid(self.log_alpha - shift).expand_as(self.weight).sum()


def forward_backward(layer: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> Callable:
    """One training pass, the L0 penalty included."""

    def run() -> None:
        layer.zero_grad()
        penalty = layer.expected_l0() if hasattr(layer, "expected_l0") else 0.0
        ((layer(x) * gradient).sum() + 1e-6 * penalty).backward()

    return run


def gate_table(gate: str, batch: int = 128) -> None:
    """A 1024 × 1024 layer: ours, the paper's formulas, a plain linear layer."""
    torch.manual_seed(0)
    x, gradient = torch.randn(batch, 1024, requires_grad=True), torch.randn(batch, 1024)
    layers = {
        "course_lib": L0Linear(nn.Linear(1024, 1024), gate),
        "the paper's formulas": PaperL0Linear(1024, 1024, gate),
        "plain linear": nn.Linear(1024, 1024),
    }
    sides = {name: forward_backward(layer, x, gradient) for name, layer in layers.items()}
    title = f"a gate for each {gate}, 1024², batch {batch}, forward and backward"
    report(title, cpu_seconds(sides, 21), 1.0, method=f"hard concrete, {gate}s")


def gate_tables() -> None:
    """A gate for each input, and one for each weight."""
    gate_table("input")
    gate_table("weight")


# ---------------------------------------------------------------- what scores cost


def random_text(windows: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (windows, 256) for TinyLM; to a clock all texts are the same."""
    tokens = torch.randint(2048, (windows, 257), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


def all_scores(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[dict, ...]:
    """|g|, Taylor, SNIP and Optimal Brain Damage by Fisher, of every parameter, one window each."""
    windows = zip(inputs.split(1), targets.split(1), strict=True)
    evidence = collect_evidence(model, windows, next_token_loss)
    weights, gradient = dict(model.named_parameters()), evidence.gradient
    return (
        {name: gradient_magnitude(gradient[name]) for name in weights},
        {name: taylor(w, gradient[name]) for name, w in weights.items()},
        snip(weights, gradient),
        {name: saliency(w, evidence.squared[name]) for name, w in weights.items()},
    )


def backward(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int = 8) -> None:
    """A plain backward pass, `batch` examples at a time; gradients are added up."""
    model.zero_grad()
    for some, wanted in zip(inputs.split(batch), targets.split(batch), strict=True):
        logits = model(some).flatten(0, -2)  # (B, T, V) -> (B·T, V)
        F.cross_entropy(logits, wanted.flatten()).backward()
    model.zero_grad()


def score_table() -> None:
    """All diagonal scores of TinyLM over 32 windows of 256 tokens."""
    model = tiny()[0].requires_grad_(True)
    text = random_text(32)
    sides = {
        "course_lib, four scores": lambda: all_scores(model, *text),
        "one backward pass, batches of 8": lambda: backward(model, *text),
    }
    title = "four scores of TinyLM's weights over 32 windows, beside one backward pass"
    report(title, cpu_seconds(sides), 1.3, method="scores of weights")


def probe_table(title: str, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """Hutchinson's probes beside a backward pass over the same examples, all at once."""
    model.requires_grad_(True)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        logits = functional_call(model, weights, (inputs,)).flatten(0, -2)
        return F.cross_entropy(logits, targets.flatten())

    seconds = cpu_seconds(
        {
            "1 probe": lambda: hutchinson_diagonal(loss, weights, 1, generator),
            "5 probes": lambda: hutchinson_diagonal(loss, weights, 5, generator),
            "backward": lambda: backward(model, inputs, targets, len(inputs)),
        }
    )
    first, more = seconds["1 probe"], (seconds["5 probes"] - seconds["1 probe"]) / 4
    print(f"Hutchinson on {title}, in backward passes: first probe", end=" ")
    print(f"{first / seconds['backward']:.1f}, each more {more / seconds['backward']:.1f}")


def probe_tables() -> None:
    """Hutchinson's probes of two networks."""
    data = digits()
    probe_table("digits", DigitsMLP(), data.train_images, data.train_labels)
    probe_table("TinyLM", tiny()[0], *random_text(8))


# ---------------------------------------------------------------- OBS, 512 × 512 to 50 %

PLAIN_ROWS = 2  # rows of the plain side, which needs about a second for each


def obs_layer(width: int = 512, examples: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    """A square layer and the Hessian of inputs that hang together, with 1 % of damping in it."""
    torch.manual_seed(0)
    inputs = torch.randn(examples, width) @ torch.randn(width, width)
    hessian = layer_hessian(inputs)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(width)
    return torch.randn(width, width), hessian


def inverted_anew(weight: torch.Tensor, hessian: torch.Tensor, density: float) -> torch.Tensor:
    """OBS as the formula says it: before each removal the inverse of what is left."""
    weight = weight.double()
    for w in weight:
        left = torch.arange(len(w))
        for _ in range(len(w) - round(density * len(w))):
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[left][:, left]))
            at = (w[left].square() / inverse.diagonal()).argmin()
            w[left] -= w[left[at]] / inverse[at, at] * inverse[at]
            w[left[at]] = 0
            left = torch.cat([left[:at], left[at + 1 :]])
    return weight.float()


def whole_inverses(weight: torch.Tensor, hessian: torch.Tensor, density: float) -> torch.Tensor:
    """The authors' way (Optimal Brain Compression): H⁻¹ of each row, lowered by u uᵀ at each step.

    In float32, as theirs, 32 rows at a time; restated from the paper.
    """
    parts, every = [], torch.arange(32)
    for part in weight.split(32):
        w, gone = part.clone(), torch.zeros_like(part, dtype=torch.bool)
        inverses = damped_inverse(hessian).float().repeat(len(part), 1, 1)  # (R, I, I)
        for _ in range(w.shape[1] - round(density * w.shape[1])):
            diagonal = inverses.diagonal(dim1=1, dim2=2)
            at = (w.square() / diagonal).masked_fill_(gone, torch.inf).argmin(dim=1)
            column, pivot = inverses[every, at], diagonal[every, at].unsqueeze(1)
            w -= w[every, at].unsqueeze(1) / pivot * column
            gone[every, at] = True
            w.masked_fill_(gone, 0)
            column /= pivot.sqrt()
            inverses.baddbmm_(column.unsqueeze(2), column.unsqueeze(1), alpha=-1)
        parts.append(w)
    return torch.cat(parts)


def obs_table() -> None:
    """CPU time and the squared error of the outputs; the plain side on a few rows, scaled."""
    weight, hessian = obs_layer()
    sides = {
        "course_lib": obs_prune,
        "an inverse for each step": inverted_anew,
        "a rank-one update of each row's inverse": whole_inverses,
    }
    rows = {name: PLAIN_ROWS if name.startswith("an ") else len(weight) for name in sides}
    results = {}

    def run(name: str) -> None:
        results[name] = sides[name](weight[: rows[name]], hessian, 0.5)

    seconds = cpu_seconds({name: lambda n=name: run(n) for name in sides}, repeats=1)
    scaled = {name: value * len(weight) / rows[name] for name, value in seconds.items()}
    first = {name: found[:PLAIN_ROWS] - weight[:PLAIN_ROWS] for name, found in results.items()}
    increase = {n: float(((d.double() @ hessian) * d).sum() / 2) for n, d in first.items()}
    title = f"OBS of 512 × 512 to 50 %; the second timed on {PLAIN_ROWS} rows, scaled"
    told = {"quality": increase, "unit": f"error of {PLAIN_ROWS} rows", "more": False}
    report(title, scaled, 0.6, method="Optimal Brain Surgeon", **told)
    ours = results["course_lib"]
    for name, found in results.items():
        differ = int(((found == 0) != (ours[: len(found)] == 0)).sum())
        print(f"    {name:44} {differ} other choices in {len(found)} rows")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {
        "magnitude": magnitude_table,
        "top": top_k_table,
        "gates": gate_tables,
        "scores": score_table,
        "probes": probe_tables,
        "obs": obs_table,
    }
    run_tables(tables, tuple(tables))
