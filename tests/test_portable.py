"""What the claims' checks say is said on other processors too; `make portable` asks the lessons."""

import numpy as np
import portable
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output, writes
from perturb import perturbed

FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # of x86-64


@pytest.fixture(scope="module")
def said():
    return portable.claims()


@pytest.mark.parametrize("seed", range(3))
def test_a_check_says_the_same_with_other_last_bits(said, seed):
    with perturbed(seed):
        assert portable.claims() == said


@pytest.mark.parametrize("arithmetic", ["AVX2", "baseline", "MKL compatible"])
def test_a_check_says_the_same_under_another_arithmetic(said, arithmetic):
    fingerprint, others = portable.claims_under(portable.ARITHMETICS[arithmetic])
    assert others == said
    if FAST and arithmetic != "AVX2":  # which may be this processor's own
        assert fingerprint != portable.fingerprint(), "that was no other arithmetic"


def on_the_edge() -> int:
    """How many of the weights 0.1, 0.2, …, 1.0, recovered by least squares, are above 0.5."""
    x = np.random.default_rng(0).normal(size=(100, 10))
    return int(np.sum(np.linalg.lstsq(x, x @ np.linspace(0.1, 1, 10), rcond=None)[0] > 0.5))


def to_the_last_place() -> bool:
    return bool(np.linalg.norm(np.array([3.0, 4.0])) == 5)


def all_digits() -> str:
    x = torch.randn(50, 50, generator=torch.Generator().manual_seed(0))
    return str((x @ x).sum().item())


def on_a_border() -> str:
    return f"{np.array([0.125, 0.125, 0.125]).mean():.2f}"


@pytest.mark.parametrize("check", [on_the_edge, to_the_last_place, all_digits, on_a_border])
def test_a_knifes_edge_is_seen(check):
    said = {check()}
    for seed in range(20):
        with perturbed(seed):
            said.add(check())
    assert len(said) > 1


def halves() -> str:
    """Everything here is exact, or computed twice."""
    w = np.array([0.5, -0.25, 4.0])
    kept = np.sum(np.abs(w) >= 0.25)
    total = torch.tensor([0.5, 0.25]).mul(2).tolist()
    return f"{kept} {w.mean() == w.mean()} {w / 2} {total} {np.mean(w > 0)}"


def test_what_is_exact_stays():
    with perturbed(3):
        assert halves() == "3 True [ 0.25  -0.125  2.   ] [1.0, 0.5] 0.6666666666666666"


def test_perturbing_ends():
    before = torch.ones(3, 3).mm(torch.ones(3, 3)), np.ones(9).sum()
    with perturbed(1):
        assert np.array([1.0, 2.0]).sum() != 3 and torch.full((9,), 0.3).sum() != 2.7
    assert (torch.ones(3, 3).mm(torch.ones(3, 3)) == before[0]).all() and before[1] == 9
    assert type(np.array([1.0])) is np.ndarray


def test_a_notebook_that_prints_something_else_is_red(tmp_path):
    outputs = [new_output("stream", text="AVX512\n")]
    code = "import os\nprint(os.environ['ATEN_CPU_CAPABILITY'])"
    cell = new_code_cell(code, outputs=outputs, execution_count=1)
    path = tmp_path / "one.ipynb"
    path.write_text(writes(new_notebook(cells=[cell])))
    red = portable.red_cells(path, portable.ARITHMETICS["AVX2"])
    assert [one.cell for one in red] == [0] and "avx2" in red[0].text
