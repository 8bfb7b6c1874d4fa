"""Every form in which a file holds a tensor: its scheme, its parts, who makes and who reads them.

Scheme         codes, scale, zero_point                    `linear`
Codes          the same, of codes that are chosen already  `linear`
Sparse         values and bitmap, gaps or indices          `sparse`
TwoOfFour      places, and values or those of a Scheme     `two_of_four`
Codebook       codes, levels                               `codebook`
FixedLevels    the same, and scale or three parts for it   `codebook`
FewBits        codes, scale, float                         `floats`
MX             codes, exponents, float                     `floats`
NVFP4          codes, block_scales, tensor_scale           `floats`
EvenCoded      even_coded                                  `even_coded`
Shared         shared                                      `shared`
Vectors        codebooks, stages                           `vectors`
Ternary        trits, scale                                `trits`
Trits          the same, of codes that are chosen already  `trits`
Corrected      those of any scheme above, left and right   `corrected`
torch.dtype    the tensor itself, in that float type
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.formats import codebook, floats
from course_lib.formats.codebook import SCALE_PARTS, Codebook, FixedLevels
from course_lib.formats.corrected import FACTORS, Corrected, decode_corrected, encode_corrected
from course_lib.formats.even_coded import EvenCoded, decode_even, encode_even
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.linear import Codes, Scheme, decode_linear, encode_codes, encode_linear
from course_lib.formats.shared import Shared, decode_shared, encode_shared
from course_lib.formats.sparse import Sparse, decode_sparse, encode_sparse
from course_lib.formats.trits import Ternary, Trits, decode_trits, encode_ternary, encode_trits
from course_lib.formats.two_of_four import TwoOfFour, decode_two_of_four, encode_two_of_four
from course_lib.formats.vectors import Vectors, decode_vectors, encode_vectors

AnyScheme = (
    Scheme | Codes | Sparse | TwoOfFour | Codebook | FixedLevels | FewBits | MX | NVFP4
    | EvenCoded | Shared | Vectors | Ternary | Trits | Corrected | torch.dtype
)  # fmt: skip


class Form(NamedTuple):
    """How the tensors of one scheme are stored: which parts, made and read by whom."""

    scheme: type
    encode: Callable[[Tensor, object], dict[str, Tensor]]
    decode: Callable[[Mapping[str, Tensor], torch.Size], Tensor]
    parts: tuple[set[str], ...]  # each a set of names that stand together


LINEAR = ({"codes", "scale"}, {"codes", "scale", "zero_point"})
SPARSE = tuple({"values", place} for place in ("bitmap", "gaps", "indices"))
TWO_OF_FOUR = tuple({*values, "places"} for values in ({"values"}, *LINEAR))
LEVELS = ({"codes", "levels"},)
SCALED = tuple({"codes", "levels", *scale} for scale in (("scale",), SCALE_PARTS))
FEW_BITS = ({"codes", "scale", "float"},)
BLOCKS = ({"codes", "exponents", "float"},)
TRITS = ({"trits", "scale"},)
NV_BLOCKS = ({"codes", "block_scales", "tensor_scale"},)
PLAIN = (
    Form(Scheme, encode_linear, decode_linear, LINEAR),
    Form(Codes, encode_codes, decode_linear, LINEAR),
    Form(Sparse, encode_sparse, decode_sparse, SPARSE),
    Form(TwoOfFour, encode_two_of_four, decode_two_of_four, TWO_OF_FOUR),
    Form(Codebook, codebook.encode_codebook, codebook.decode_codebook, LEVELS),
    Form(FixedLevels, codebook.encode_fixed, codebook.decode_codebook, SCALED),
    Form(FewBits, floats.encode_few_bits, floats.decode_few_bits, FEW_BITS),
    Form(MX, floats.encode_mx_parts, floats.decode_mx_parts, BLOCKS),
    Form(NVFP4, floats.encode_nvfp4_parts, floats.decode_nvfp4_parts, NV_BLOCKS),
    Form(EvenCoded, encode_even, decode_even, ({"even_coded"},)),
    Form(Shared, encode_shared, decode_shared, ({"shared"},)),
    Form(Vectors, encode_vectors, decode_vectors, ({"codebooks", "stages"},)),
    Form(Ternary, encode_ternary, decode_trits, TRITS),
    Form(Trits, encode_trits, decode_trits, TRITS),
)


def encode_plain(tensor: Tensor, scheme: object) -> dict[str, Tensor]:
    """A tensor's parts in the form of its scheme, `Corrected` left out; no name for all of it.

    Raises:
        TypeError: a scheme of another kind.
        ValueError: what the scheme's encoder refuses.

    >>> list(encode_plain(torch.eye(99), Sparse()))
    ['values', 'gaps']
    """
    for form in PLAIN:
        if isinstance(scheme, form.scheme):
            return form.encode(tensor, scheme)
    known = ", ".join(form.scheme.__name__ for form in PLAIN)
    raise TypeError(f"the base's scheme must be {known}; got {scheme!r}")


def decode_plain(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The tensor that `encode_plain`'s parts stand for.

    >>> decode_plain(encode_plain(torch.eye(99), Sparse()), torch.Size((99, 99))).trace()
    tensor(99.)
    """
    if parts.keys() == {""}:
        return parts[""]
    form = next(form for form in PLAIN if parts.keys() in form.parts)
    return form.decode(parts, shape)


CORRECTED = tuple({*FACTORS, *parts} for parts in ({""}, *(p for f in PLAIN for p in f.parts)))
FORMS = (
    *PLAIN,
    Form(
        Corrected,
        partial(encode_corrected, encode_base=encode_plain),
        partial(decode_corrected, decode_base=decode_plain),
        CORRECTED,
    ),
)
