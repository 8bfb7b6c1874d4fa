"""A form with factors beside it: what comes back, what it weighs, and whole models from a file."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from course_lib.formats.codebook import NF4, Codebook
from course_lib.formats.corrected import Corrected
from course_lib.formats.even_coded import EvenCoded
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.forms import FORMS, PLAIN
from course_lib.formats.linear import Scheme, nearest_codes
from course_lib.formats.model_file import (
    every_linear,
    pack_model,
    pack_tensors,
    quantize_model,
    unpack_model,
    unpack_tensors,
)
from course_lib.formats.shared import Shared
from course_lib.formats.sparse import Sparse
from course_lib.formats.trits import Ternary, Trits
from course_lib.formats.two_of_four import TwoOfFour
from course_lib.formats.vectors import Vectors
from course_lib.low_rank.residual import alternate, give_back
from course_lib.low_rank.svd import Factors
from course_lib.measure.quality import quality
from course_lib.measure.size import size
from course_lib.models.n_of_m import n_of_m_mask
from course_lib.models.selection import largest_masks
from course_lib.quantization.floats import E2M1
from course_lib.quantization.linear import Format

THREE_BITS = Scheme(Format(3), 16)


def there_and_back(weight, scheme):
    packed = pack_tensors({"w": weight}, {"w": scheme})
    return unpack_tensors(packed, {"w": weight})["w"]


def halves(factors):
    return Factors(*(factor.half().float() for factor in factors)).product


def two_of_four(weight):
    return weight * n_of_m_mask(weight.abs(), 2, 4)


def few_values(weight):
    return (weight * 2).round() / 2


BASES = {
    "linear": (THREE_BITS, lambda w: w),
    "a choice of codes": (nearest_codes(torch.randn(8, 32), THREE_BITS), lambda w: w),
    "sparse": (Sparse(), lambda w: w * (w > 1)),
    "sparse in vain": (Sparse(), lambda w: w),
    "2 of 4": (TwoOfFour(), two_of_four),
    "2 of 4, rounded": (TwoOfFour(Scheme(Format(4), 16)), two_of_four),
    "codebook": (Codebook(3), lambda w: w),
    "NF4": (NF4, lambda w: torch.cat([w, w], dim=1)),
    "floats": (FewBits(E2M1, "channel"), lambda w: w),
    "MX": (MX(E2M1), lambda w: w),
    "NVFP4": (NVFP4(), lambda w: w),
    "coded": (EvenCoded(0.25), lambda w: w),
    "shared": (Shared(), few_values),
    "vectors": (Vectors(2, 4, 1), lambda w: w),
    "ternary": (Ternary(), lambda w: w),
    "a choice of trits": (
        Trits(torch.ones(8, 32, dtype=torch.int8), torch.ones(8, 1)),
        lambda w: w,
    ),
}


@pytest.mark.parametrize("name", BASES)
def test_any_base_comes_back_with_the_product_added(name, tmp_path):
    base, shape = BASES[name]
    weight = shape(torch.randn(8, 32, generator=torch.Generator().manual_seed(1)))
    factors = Factors(torch.randn(8, 3), torch.randn(3, weight.shape[1]))
    alone = there_and_back(weight, base)
    assert there_and_back(weight, Corrected(base, factors)).equal(alone + halves(factors))
    packed = pack_tensors({"w": weight}, {"w": Corrected(base, factors)})
    save_file(packed, tmp_path / "w.safetensors")
    again = unpack_tensors(load_file(tmp_path / "w.safetensors"), {"w": weight})["w"]
    assert again.equal(alone + halves(factors))
    plain = pack_tensors({"w": weight}, {"w": base})
    assert {name: part for name, part in packed.items() if name in plain}.keys() == plain.keys()
    more = sum(part.nbytes for part in packed.values()) - sum(p.nbytes for p in plain.values())
    assert more == 2 * factors.count


def test_every_form_is_tried_above():
    tried = {type(base) for base, _ in BASES.values()}
    assert tried == {form.scheme for form in PLAIN}
    assert {form.scheme for form in FORMS} == tried | {Corrected}


def test_no_two_forms_have_the_same_parts():
    seen = [frozenset(parts) for form in FORMS for parts in form.parts]
    twice = [{"codes", "scale"}, {"codes", "scale", "zero_point"}, {"trits", "scale"}]
    assert all(seen.count(frozenset(parts)) == 2 for parts in twice)  # with codes chosen or not
    assert len(seen) - len(set(seen)) == 2 * len(twice)  # they alone; and all corrected


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 99), st.booleans())
def test_odd_shapes_and_rank_0(O, I, rank, seed, wide):  # noqa: E741
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(O, I, generator=generator)
    rank = min(rank, O, I)
    scheme = Scheme(Format(3), "channel")
    rounded = there_and_back(weight, scheme)
    factors = give_back(weight.double() if wide else weight, rounded, rank)
    back = there_and_back(weight, Corrected(scheme, factors))
    torch.testing.assert_close(back, rounded + halves(factors))  # a product's last bit is free
    if rank == min(O, I):  # all of it, but for the factors' own rounding: 2⁻¹⁰ of what was missing
        bound = 2**-10 * (weight - rounded).norm() * rank + 1e-6
        assert (back - weight).norm() <= bound


def test_the_error_is_that_of_the_factors_and_rounding_them_costs_nothing():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    rounded = there_and_back(weight, THREE_BITS)
    factors = give_back(weight, rounded, 16)
    back = there_and_back(weight, Corrected(THREE_BITS, factors))
    exact = (weight - rounded - factors.product).norm()
    assert (weight - back).norm() == pytest.approx(exact.item(), rel=1e-4)
    assert (weight - back).norm() < 0.9 * (weight - rounded).norm()


def test_low_rank_and_sparse_in_one_file():
    """The name holds the sparse matrix; what comes back is the sum."""
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) ** 3
    sparse, factors = alternate(
        weight, lambda w: w * largest_masks({"w": w}, 600)["w"], rank=4, rounds=5
    )
    packed = pack_tensors({"w": sparse}, {"w": Corrected(Sparse(), factors)})
    assert set(packed) == {"w:values", "w:gaps", "w:left", "w:right"}
    back = unpack_tensors(packed, {"w": weight})["w"]
    torch.testing.assert_close(back, sparse + factors.product, atol=2e-2, rtol=0)
    assert (weight - back).norm() < (weight - sparse).norm()


def test_a_packed_model_is_as_good_as_its_file(tiny, tmp_path):
    model, tokenizer = tiny
    plain = every_linear(model, Scheme(Format(3), 64))
    rounded, expected, schemes = quantize_model(model, plain), copy.deepcopy(model), {}
    for name, base in plain.items():
        approximation = rounded.get_parameter(name)
        factors = give_back(model.get_parameter(name), approximation, 4)
        schemes[name] = Corrected(base, factors)
        expected.get_parameter(name).data.copy_(approximation + halves(factors))
    packed = pack_model(model, schemes)
    save_file(packed, tmp_path / "model.safetensors")
    loaded = unpack_model(load_file(tmp_path / "model.safetensors"), model)
    text = "And the earth was without form, and void; and darkness was upon the face of the deep."
    of_file, by_hand, before = (
        quality(some, tokenizer, text).nats for some in (loaded, expected, rounded)
    )
    assert of_file == by_hand != before
    assert (tmp_path / "model.safetensors").stat().st_size == size(packed).bytes
    names = 2 * 110 * len(schemes)  # bytes, about, of the header: two more tensors for each
    more = size(packed).bytes - size(pack_model(model, plain)).bytes
    assert 0 <= more - 2 * sum(scheme.factors.count for scheme in schemes.values()) < names


def test_a_base_in_half_precision_is_summed_in_float32():
    weight = (torch.rand(4, 8) > 0.7).half() * 3
    factors = Factors(torch.rand(4, 2), torch.rand(2, 8))
    back = there_and_back(weight, Corrected(Sparse(), factors))
    assert back.dtype == torch.float16
    assert back.equal((weight.float() + halves(factors)).half())


def test_what_does_not_fit_is_refused():
    weight, good = torch.randn(4, 16), Factors(torch.ones(4, 2), torch.ones(2, 16))
    for left, right in ((good.left[:3], good.right), (good.left, good.right[:1]),
                        (good.left, good.right[:, 1:]), (good.left[:, 0], good.right)):  # fmt: skip
        with pytest.raises(ValueError, match=r"factors must be \(O, r\) and \(r, I\)"):
            pack_tensors({"w": weight}, {"w": Corrected(THREE_BITS, Factors(left, right))})
    with pytest.raises(ValueError, match="factors must be"):
        pack_tensors({"w": weight[0]}, {"w": Corrected(Sparse(), good)})
    with pytest.raises(ValueError, match="left, in float16, must be finite"):
        pack_tensors({"w": weight}, {"w": Corrected(THREE_BITS, Factors(good[0] * 7e4, good[1]))})
    with pytest.raises(ValueError, match="right, in float16, must be finite"):
        pack_tensors({"w": weight}, {"w": Corrected(THREE_BITS, Factors(good[0], good[1] / 0))})
    for base in (torch.float16, None, Corrected(THREE_BITS, good)):
        with pytest.raises(TypeError, match="the base's scheme must be Scheme, Codes, Sparse"):
            pack_tensors({"w": weight}, {"w": Corrected(base, good)})
    with pytest.raises(ValueError, match="weight must be finite"):
        pack_tensors({"w": weight * torch.nan}, {"w": Corrected(TwoOfFour(), good)})
    packed = pack_tensors({"w": weight}, {"w": Corrected(THREE_BITS, good)})
    del packed["w:right"]
    with pytest.raises(ValueError, match="no form here has the parts"):
        unpack_tensors(packed, {"w": weight})


def test_tied_weights_have_one_correction():
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    model[1].weight = model[0].weight
    scheme = Corrected(THREE_BITS, Factors(torch.ones(16, 1), torch.ones(1, 16)))
    packed = pack_model(model, dict.fromkeys(("0.weight", "1.weight"), scheme))
    assert packed["0.weight:left"] is packed["1.weight:left"]
