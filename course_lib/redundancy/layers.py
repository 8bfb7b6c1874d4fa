"""Which layers, heads and units do little: chapter 04 asks this, too, so it stands in `models`."""

from course_lib.models.layers import (
    contributions,
    head_contributions,
    layer_influence,
    unit_contributions,
)
from course_lib.models.parts import record_inputs

__all__ = [
    "contributions",
    "head_contributions",
    "layer_influence",
    "record_inputs",
    "unit_contributions",
]
