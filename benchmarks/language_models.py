"""Language models: this library beside the authors' algorithms, written plainly in `authors`.

    OMP_NUM_THREADS=1 python -m benchmarks.language_models          all, or some by their names:
    OMP_NUM_THREADS=1 python -m benchmarks.language_models gptq sparsegpt wanda awq walk
    OMP_NUM_THREADS=1 python -m benchmarks.language_models leaderboard FOLDER      see there
    OMP_NUM_THREADS=1 python -m benchmarks.language_models gguf FILE               see there

Times are CPU seconds; the sides take turns, the figure is the median of 5. The Gram matrix is
there already; what is timed is all that comes after it.
"""

import sys

import torch
from torch import Tensor

from benchmarks import authors
from benchmarks.leaderboard import gguf_file, leaderboard
from benchmarks.measuring import (
    QUICK,
    cpu_seconds,
    extra_bytes,
    in_a_fresh_process,
    report,
    run_tables,
)
from course_lib.formats.linear import Scheme
from course_lib.language_models.awq import search_clip
from course_lib.language_models.gptq import gptq
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.moments import output_error
from course_lib.models.walk import Stage, treat_blocks
from course_lib.quantization.linear import Format, fake_quantize, fit_grid

SIZE = 1024 if QUICK else 2048
NEAR = 1e-3  # by this share an output error may be above the peer's: a tie fell to the other side


def layer() -> tuple[Tensor, Tensor]:
    """A weight (O, I) and the Gram matrix (I, I) of inputs that depend on each other.

    A tenth of the inputs has ten times the size of the others.
    """
    torch.manual_seed(0)
    sizes = torch.ones(SIZE).index_fill(0, torch.randperm(SIZE)[: SIZE // 10], 10.0)
    x = (torch.randn(2 * SIZE, SIZE // 4) @ torch.randn(SIZE // 4, SIZE)) / SIZE**0.5
    x = (x + 0.5 * torch.randn_like(x)) * sizes
    return torch.randn(SIZE, SIZE) * 0.02, x.T @ x / len(x)


def errors(weight: Tensor, gram: Tensor, *others: Tensor) -> dict:
    """Each one's output error over the output's power, as `report` wants it."""
    whole = output_error(weight, gram).double().sum()
    shares = [float(output_error(weight - w, gram).double().sum() / whole) for w in others]
    return {"quality": shares, "unit": "output error", "more": False, "equal": NEAR}


def gptq_table(weight: Tensor, gram: Tensor, static_groups: bool) -> None:
    """4 bits, groups of 128."""
    scheme = Scheme(Format(4), 128)
    sides = {
        "course_lib": lambda: gptq(weight, gram, scheme, static_groups=static_groups),
        "the authors' algorithm": lambda: authors.gptq(
            weight, 2 * gram, 4, 128, static_groups=static_groups
        ),
    }
    ours, (codes, theirs) = (side() for side in sides.values())
    differ = (ours.codes != codes).sum().item()
    title = "static groups" if static_groups else "groups fitted on the way"
    told = {"method": f"GPTQ, {title}"} | errors(weight, gram, ours.weight, theirs)
    title = (
        f"GPTQ, {SIZE}², 4 bits, 128 a group, {title}: {differ} of {codes.numel():,} codes differ"
    )
    report(title, cpu_seconds(sides, 5), 0.7, **told)


def sparsegpt_table(weight: Tensor, gram: Tensor, density: float | tuple[int, int]) -> None:
    """Half of the weights, or two of every four."""
    sides = {
        "course_lib": lambda: sparsegpt(weight, gram, density),
        "the authors' algorithm": lambda: authors.sparsegpt(weight, 2 * gram, density),
    }
    ours, theirs = (side() for side in sides.values())
    differ = ((ours == 0) != (theirs == 0)).sum().item()
    title = f"SparseGPT, {SIZE}², {density}: {differ} of {ours.numel():,} choices differ"
    told = {"method": f"SparseGPT, {density}"} | errors(weight, gram, ours, theirs)
    report(title, cpu_seconds(sides, 5), 0.6, **told)


def wanda_table(weight: Tensor, gram: Tensor) -> None:
    """Half of each row."""
    sides = {
        "course_lib": lambda: row_mask(wanda_score(weight, gram), 0.5),
        "the authors' algorithm": lambda: authors.wanda(weight, gram.diagonal(), 0.5),
    }
    ours, theirs = (side() for side in sides.values())
    title = f"Wanda, {SIZE}², half: {(ours != theirs).sum().item()} choices differ"
    told = {"method": "Wanda"} | errors(weight, gram, weight * ours, weight * theirs)
    report(title, cpu_seconds(sides, 5), 0.5, **told)


def awq_table(weight: Tensor, gram: Tensor) -> None:
    """Clip search, 4 bits, groups of 128, on 512 tokens; one run, as the peer takes a minute."""
    x = torch.randn(512, SIZE) @ torch.linalg.cholesky(gram).T
    own_gram = x.T @ x / len(x)
    sides = {
        "course_lib": lambda: search_clip(weight, own_gram, Format(4), 128),
        "the authors' algorithm": lambda: authors.awq_clip(weight, x, 4, 128),
    }
    ours = sides["course_lib"]()
    rows, bound = weight.view(-1, 128), authors.awq_clip(weight, x, 4, 128).view(-1, 1)
    theirs = rows.clamp(-bound, bound)
    ends = theirs.amin(1, keepdim=True), theirs.amax(1, keepdim=True)
    sums = []
    for values, range_ in ((rows, ours), (theirs, ends)):
        change = fake_quantize(values, fit_grid(*range_, Format(4))) - rows
        change = change.view(SIZE, -1, 128).transpose(0, 1)  # (R, C) -> (I/C, O, C)
        outputs = x.view(len(x), -1, 128).transpose(0, 1) @ change.mT  # (I/C, N, O)
        sums.append(outputs.double().square().sum().item())
    title = f"AWQ's clip, {SIZE}², 4 bits, 128 a group"
    told = {"quality": sums, "unit": "output error", "more": False, "equal": NEAR}
    report(title, cpu_seconds(sides, 1), 0.02, method="AWQ's clip", **told)


def gptq_tables() -> None:
    """Both kinds of groups."""
    made = layer()
    for static in (True, False):
        gptq_table(*made, static)


def sparsegpt_tables() -> None:
    """Both patterns."""
    made = layer()
    for share in (0.5, (2, 4)):
        sparsegpt_table(*made, share)


def leave(stage: Stage) -> None:
    """Treats nothing."""


def walk_megabytes(layers: int) -> float:
    """How much the peak memory grows while a decoder of so many blocks is walked through."""
    config = LlamaConfig(512, 256, layers, 4, 2, 768, 256)
    tokens = torch.zeros(16, 256, dtype=torch.int64)
    treat_blocks(Llama(config), tokens, leave, range(1))  # loads what is loaded once
    return extra_bytes(treat_blocks, Llama(config), tokens, leave) / 2**20


def walk_table() -> None:
    """Memory beside the model's, for 2 blocks and for 16."""
    few, many = (in_a_fresh_process(walk_megabytes, layers) for layers in (2, 16))
    print(f"a walk, extra memory: {few:.0f} MB for 2 blocks, {many:.0f} MB for 16")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["leaderboard"] and sys.argv[2:]:
        sys.exit(leaderboard(*sys.argv[2:]))
    if sys.argv[1:2] == ["gguf"] and len(sys.argv) == 3:
        sys.exit(gguf_file(sys.argv[2]))
    tables = {
        "gptq": gptq_tables,
        "sparsegpt": sparsegpt_tables,
        "wanda": lambda: wanda_table(*layer()),
        "awq": lambda: awq_table(*layer()),
        "walk": walk_table,
    }
    run_tables(tables, tuple(tables))
