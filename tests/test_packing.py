import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.formats.packing import pack, unpack


@given(st.integers(2, 8), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_unpack_undoes_pack(bits, count, seed):
    codes = torch.from_numpy(
        np.random.default_rng(seed).integers(2**bits, size=count, dtype=np.uint8)
    )
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8 and len(packed) == bits * -(-count // 8)
    assert torch.equal(unpack(packed, bits, count), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_no_bit_is_wasted(bits):
    """Eight codes of n ones are n bytes of ones; one code of ones is n bits."""
    full = torch.full((8,), 2**bits - 1)
    assert pack(full, bits).tolist() == [255] * bits
    for place in range(8):
        codes = torch.zeros(8, dtype=torch.uint8)
        codes[place] = 2**bits - 1
        assert np.unpackbits(pack(codes, bits).numpy()).sum() == bits


def test_the_layout_is_the_one_described():
    """Three bits, run k moved up by 3k bits, low bits first: one number of 24 bits."""
    codes = [7, 1, 0, 2, 5, 6, 3, 4]
    number = sum(code << (3 * k) for k, code in enumerate(codes))
    assert pack(torch.tensor(codes), 3).tolist() == list(number.to_bytes(3, "little"))


def test_any_shape_and_integer_type():
    codes = torch.arange(12, dtype=torch.int32).view(3, 4)
    assert torch.equal(unpack(pack(codes, 4), 4, 12).view(3, 4), codes.to(torch.uint8))


@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_other_widths_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits must be from 2 to 8.*got {bits}"):
        pack(torch.zeros(8, dtype=torch.uint8), bits)
    with pytest.raises(ValueError, match="bits must be"):
        unpack(torch.zeros(8, dtype=torch.uint8), bits, 8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"codes must not be empty; got shape \(0,\)"):
        pack(torch.zeros(0, dtype=torch.uint8), 4)
    with pytest.raises(ValueError, match=r"shape \(8,\) for 16 codes of 4 bits; got \(7,\)"):
        unpack(torch.zeros(7, dtype=torch.uint8), 4, 16)
