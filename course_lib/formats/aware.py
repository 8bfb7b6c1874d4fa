"""A model after quantization-aware training, as the packed file holds it.

The levels that it trained with are those of the file: scales are float16 numbers from the first
step on. So the file gives back the very weights that the last step computed with, and the loss.

    codes −1, 0, 1          Trits, 1.6 bits a weight
    codes of 2 … 8 bits     Codes
    even levels, no end     EvenCoded, under Huffman's code
"""

from torch import nn

from course_lib.formats.even_coded import EvenCoded
from course_lib.formats.linear import Codes
from course_lib.formats.trits import Trits
from course_lib.quantization.aware import AwareLinear, settled
from course_lib.quantization.even_steps import EvenSteps
from course_lib.quantization.roundings import TERNARY

AnyCodes = Codes | Trits | EvenCoded


def exported(model: nn.Module) -> tuple[nn.Module, dict[str, AnyCodes]]:
    """The settled model, and how to store the weights of its linear layers.

    `pack_model(*exported(model))` is the file, `unpack_model` gives the settled model back.

    Args:
        model: from `aware_model`, trained or not.

    Raises:
        ValueError: a weight or a scale is NaN or infinite, as after a training that diverged.

    >>> from course_lib.formats.model_file import pack_model
    >>> from course_lib.quantization.aware import aware_model
    >>> from course_lib.quantization.roundings import ToSigns
    >>> packed = pack_model(*exported(aware_model(nn.Linear(50, 4), lambda weight: ToSigns())))
    >>> {name: part.nbytes for name, part in packed.items()}
    {'weight:trits': 40, 'weight:scale': 8, 'bias': 16}
    """
    schemes: dict[str, AnyCodes] = {}
    made: dict[nn.Module, AnyCodes] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, AwareLinear):
            if layer not in made:
                made[layer] = _codes(layer)
            schemes[f"{name}.weight" if name else "weight"] = made[layer]
    return settled(model), schemes


def _codes(layer: AwareLinear) -> AnyCodes:
    if isinstance(layer.rounding, EvenSteps):
        return EvenCoded(layer.rounding.step)
    codes, grid = layer.rounding.codes(layer.weight)
    return Trits(codes, grid.scale) if grid.format == TERNARY else Codes(codes, grid)
