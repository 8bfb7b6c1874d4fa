"""The rounding of a weight that an entropy coder will write: even levels, no end to them.

    ŵ = s · round(w / s)        backward: as if there were no rounding

`roundings` has 2ⁿ levels, since each code takes n bits. Where a code takes as few bits as it is
frequent (`formats.even_coded`), no range has to be chosen, and nothing is clipped.

Source: Gish and Pierce, 1968, "Asymptotically Efficient Quantizing".
"""

import torch
from torch import Tensor, nn


class EvenSteps(nn.Module):
    """A weight on multiples of a step; the weight learns, and the step stays.

    Args:
        step: s, above 0: one for all layers, from `even_coded.step_for`.

    Raises:
        ValueError: step is not above 0, or not finite.

    >>> EvenSteps(0.5)(torch.tensor([0.2, 0.3, -7.1])).tolist()
    [0.0, 0.5, -7.0]
    """

    def __init__(self, step: float):
        super().__init__()
        if not 0 < step < float("inf"):
            raise ValueError(f"step must be above 0 and finite; got {step}")
        self.step = torch.tensor(step, dtype=torch.float32).item()  # as a file gives it back

    def forward(self, weight: Tensor) -> Tensor:
        levels = (weight.detach() / self.step).round() * self.step
        return levels + (weight - weight.detach())  # the second is 0, but not its derivative
