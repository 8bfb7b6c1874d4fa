"""Low rank: this library's decompositions beside PyTorch's, scikit-learn's and SVD-LLM's.

    OMP_NUM_THREADS=1 python -m benchmarks.low_rank                 4 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.low_rank truncated outputs randomized    or one of them

Times are CPU seconds of one thread, the median; the sides take turns. Errors are Frobenius norms,
as a multiple of the least one of that rank, or roots of the mean squared error of the outputs.
"""

from collections.abc import Iterator

import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from benchmarks.measuring import QUICK, cpu_seconds, report, run_tables
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.randomized import randomized
from course_lib.low_rank.svd import error_norms, truncated
from course_lib.models.moments import output_error
from course_lib.models.pretrained import has_smollm2, smollm2

SHAPES = ((576, 576), (1536, 576), (576, 1536), (2048, 2048))
WIDTH, RANK, SEEDS = 2048, 64, 5
NEAR = 0.01  # what a randomized error may be above the least


def svd_product(weight: Tensor, rank: int) -> Tensor:
    """The nearest matrix of a rank, by torch's SVD."""
    U, sigma, V = torch.linalg.svd(weight, full_matrices=False)
    return (U[:, :rank] * sigma[:rank]) @ V[:rank]


def svd_llm(weight: Tensor, gram: Tensor, rank: int) -> Tensor:
    """[W S]_r S⁻¹ with S from Cholesky, re-stated from SVD-LLM's description."""
    S = torch.linalg.cholesky(gram)
    return torch.linalg.solve_triangular(S, svd_product(weight @ S, rank), upper=False, left=False)


def layer(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """A weight and the Gram matrix of inputs that go together, some of them loud."""
    torch.manual_seed(0)
    x = torch.randn(2 * inputs, inputs) * torch.randn(inputs).exp()
    x += torch.randn(2 * inputs, inputs // 8) @ torch.randn(inputs // 8, inputs)
    return torch.randn(outputs, inputs), x.T @ x / len(x)


def output_tables() -> None:
    """Factors for the outputs beside a plain SVD, which knows no inputs, and SVD-LLM."""
    for outputs, inputs in SHAPES[:1] if QUICK else SHAPES:
        weight, gram = layer(outputs, inputs)
        rank = min(outputs, inputs) // 4
        sides = {
            "course_lib": lambda w=weight, g=gram, r=rank: output_factors(w, g, r).product,
            "torch.linalg.svd, plain": lambda w=weight, r=rank: svd_product(w, r),
            "SVD-LLM's whitening": lambda w=weight, g=gram, r=rank: svd_llm(w, g, r),
        }
        whole = output_error(weight, gram).sum()
        costs = [(output_error(weight - f(), gram).sum() / whole).sqrt() for f in sides.values()]
        title = f"{outputs} × {inputs} to rank {rank}"
        told = {"quality": costs, "unit": "of the output", "more": False}
        seconds = cpu_seconds(sides, 5 if weight.numel() < 2**21 else 3)
        report(title, seconds, 1.3, method="factors for the outputs", **told)


def spectra() -> Iterator[tuple[str, Tensor]]:
    """Matrices of 2048 × 2048 by how their singular values fall; the last one is SmolLM2's."""
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q for _ in range(2))
    k = torch.arange(1, WIDTH + 1.0)
    yield "σ = 1 / k", U / k @ V
    yield "σ = 1 / √k", U / k.sqrt() @ V
    yield "white noise", torch.randn(WIDTH, WIDTH)
    if has_smollm2():  # 4 blocks' gate and up weights, side by side: none is as large alone
        blocks = smollm2()[0].blocks[10:14]
        stacks = [torch.cat([b.mlp.gate.weight, b.mlp.up.weight]).detach() for b in blocks]
        yield "SmolLM2's gate and up", torch.cat(stacks, dim=1)[:WIDTH, :WIDTH].clone()


def sklearn_product(weight: Tensor, seed: int) -> Tensor:
    """The same by scikit-learn, with its own settings."""
    U, sigma, V = randomized_svd(weight.numpy(), RANK, random_state=seed)
    return torch.from_numpy((U * sigma) @ V)


def lowrank_product(weight: Tensor, seed: int) -> Tensor:
    """The same by torch.svd_lowrank, with as many extra columns as this library."""
    torch.manual_seed(seed)
    U, sigma, V = torch.svd_lowrank(weight, RANK + 16)
    return (U[:, :RANK] * sigma[:RANK]) @ V[:, :RANK].T


def our_product(weight: Tensor, seed: int) -> Tensor:
    """The same by this library."""
    return randomized(weight, RANK, generator=torch.Generator().manual_seed(seed)).product


def randomized_tables() -> None:
    """2048² to rank 64: errors over seeds as multiples of the least, and times."""
    for name, weight in spectra():
        least = error_norms(torch.linalg.svdvals(weight.double()), RANK).frobenius
        sides = {
            "course_lib": our_product,
            "torch.linalg.svd": lambda weight, seed: svd_product(weight, RANK),
            "torch.svd_lowrank": lowrank_product,
            "sklearn, randomized_svd": sklearn_product,
        }
        mean = {}
        print(f"{name}: error over the least, and the largest of {SEEDS} seeds")
        for side, product in sides.items():
            seeds = range(1 if side == "torch.linalg.svd" else SEEDS)
            errors = [float((weight - product(weight, s)).norm() / least) for s in seeds]
            mean[side] = sum(errors) / len(errors)
            print(f"    {side:44} {mean[side]:8.4f} {max(errors):8.4f}")
        calls = {side: lambda f=f, w=weight: f(w, 0) for side, f in sides.items()}
        told = {"quality": mean, "unit": "times the least error", "more": False, "equal": NEAR}
        title = f"{name}, {WIDTH}² to rank {RANK}"
        report(title, cpu_seconds(calls, 3), 0.1, method="randomized SVD", **told)


def truncated_table() -> None:
    """The truncated SVD itself: checks and balance beside torch's bare SVD."""
    weight = layer(*SHAPES[0])[0]
    sides = {
        "course_lib": lambda: truncated(weight, RANK).product,
        "torch.linalg.svd": lambda: svd_product(weight, RANK),
    }
    errors = [(weight - side()).norm() / weight.norm() for side in sides.values()]
    told = {"quality": errors, "unit": "of the weight", "more": False}
    title = f"truncated SVD of {SHAPES[0]} to rank {RANK}"
    report(title, cpu_seconds(sides, 11), 1.1, method="truncated SVD", **told)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {"truncated": truncated_table, "outputs": output_tables}
    tables["randomized"] = randomized_tables
    run_tables(tables, tuple(tables))
