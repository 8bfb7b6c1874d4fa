"""Exercise of 07_quantization_aware: a loop that trains through rounding, to be repaired.

Axes: N examples, I inputs of a layer, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def train_rounded(
    state: dict[str, Tensor], x: Tensor, y: Tensor, steps: int, rate: float
) -> dict[str, Tensor]:
    """A network's tensors after `steps` steps of training, in which each pass has rounded weights.

    Layer i = 0, 1, … has "i.weight" W (O, I), "i.bias" b (O,) and "i.step" s (O, 1), above 0, in
    `state`, and makes z ← Ŵ z + b of z, or of tanh(z) from layer 1 on; z is x (N, I) at first. Ŵ =
    s · round(clamp(W / s, −3, 3)) is made anew of the float W in each pass, and s stays as given.
    Backward, round passes its gradient on as it is; clamp has its own, 1 where −3 ≤ W / s ≤ 3, else
    0. A step sees all of x and lowers the mean square of z − y: torch.optim.SGD at this rate, the
    rest as PyTorch has it, moves W and b.

    Returned: "i.weight", the float W, and "i.bias" of each layer, in their dtype and reckoned in
    it, and "i.codes", of the last W, round(clamp(W / s, −3, 3)), int8 (O, I). `state` stays as it
    is.
    """
    layers = range(len(state) // 3)
    trained = {k: t.clone().requires_grad_() for k, t in state.items() if not k.endswith("step")}
    optimizer = torch.optim.SGD(trained.values(), lr=rate)
    for _ in range(steps):
        z = x
        for i in layers:
            place = (trained[f"{i}.weight"] / state[f"{i}.step"]).clamp(-3, 3)
            rounded = state[f"{i}.step"] * (place + (place.round() - place).detach())
            z = F.linear(z.tanh() if i else z, rounded, trained[f"{i}.bias"])
        loss = F.mse_loss(z, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {name: tensor.detach() for name, tensor in trained.items()}
    for i in layers:
        place = (found[f"{i}.weight"] / state[f"{i}.step"]).clamp(-3, 3)
        found[f"{i}.codes"] = place.round().to(torch.int8)
    return found


def as_given(
    state: dict[str, Tensor], x: Tensor, y: Tensor, steps: int, rate: float
) -> dict[str, Tensor]:
    """The loop that the lesson prints for repair. It runs, and three things are wrong with it."""
    layers = range(len(state) // 3)
    trained = {k: t.clone().requires_grad_() for k, t in state.items() if not k.endswith("step")}

    def codes(weight: Tensor) -> tuple[Tensor, Tensor]:
        step = weight.abs().amax(dim=1, keepdim=True) / 3  # so that nothing is clipped
        return (weight / step).round(), step

    optimizer = torch.optim.SGD(trained.values(), lr=rate)
    for _ in range(steps):
        z = x
        for i in layers:
            with torch.no_grad():  # rounding has no gradient
                levels, step = codes(trained[f"{i}.weight"])
            z = F.linear(z.tanh() if i else z, levels * step, trained[f"{i}.bias"])
        loss = F.mse_loss(z, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for i in layers:  # so that the weights are what the network computes with
                levels, step = codes(trained[f"{i}.weight"])
                trained[f"{i}.weight"].copy_(levels * step)
    found = {name: tensor.detach() for name, tensor in trained.items()}
    return found | {f"{i}.codes": codes(found[f"{i}.weight"])[0].to(torch.int8) for i in layers}


def _networks(seed: int) -> list[Case]:
    draw = Draw(seed)

    def network(*widths: int, steps=4, rate=0.1, examples=8, width=0.4, scale=1.0, target=2.0):
        """width: of a step, in those of the weights; 0.4: one weight in four is clipped."""
        state = {}
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
            size = scale / inputs**0.5
            state[f"{i}.weight"] = size * draw.normal(outputs, inputs).double()
            state[f"{i}.bias"] = draw.normal(outputs).double() / 3
            state[f"{i}.step"] = size * width * (0.7 + 0.6 * draw.uniform(outputs, 1)).double()
        x, y = draw.normal(examples, widths[0]), target * draw.normal(examples, widths[-1])
        return state, x.double(), y.double(), steps, rate

    steps = draw.number(3, 7)
    state, *rest = network(4, 5, 5, 3)
    labelled = {
        "one layer, one step": network(4, 3, steps=1),
        "one layer, two steps": network(4, 3, steps=2, rate=0.5),
        "one layer": network(5, 4, steps=steps, rate=0.5),
        "two layers": network(5, 6, 3, steps=steps, rate=0.3),
        "three layers": network(4, 5, 5, 2, steps=steps, rate=0.3),
        "twelve layers": network(3, 4, 2, 3, 3, 2, 4, 3, 2, 3, 4, 3, 2, steps=2, rate=0.5),
        "three layers, named in another order": (dict(sorted(state.items())[::-1]), *rest),
        "many small steps": network(4, 5, 3, steps=25, rate=0.03),
        "one small step": network(5, 4, steps=1, rate=1e-4),
        "no step": network(4, 5, 3, steps=0),
        "most weights are beyond the last level": network(6, 5, 3, width=0.05),
        "all weights are beyond the last level": network(4, 3, width=1e-3),
        "all codes are 0": network(4, 5, 3, width=50.0, steps=6, rate=0.3),
        "tiny weights": network(4, 5, scale=1e-9, rate=3e-10),
        "one example, one output": network(4, 5, 1, examples=1, rate=0.3),
        "one number": network(1, 1, examples=3),
        "a rate so large that the loss rises": network(4, 3, rate=6.0, examples=20, steps=3),
        "targets far away": network(4, 5, 3, target=1e4, rate=1e-4),
        "float32": _exact(draw, 4, [0.25, -1.75, 3.0, 2.125], 1, torch.float32),
        "weights at the last levels": _exact(draw, 6, [-3.0, 3.0, -3.0, 3.0, 1.25, -0.75]),
        "weights half-way between levels": _exact(draw, 6, [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
    }
    return labelled_cases(("state", "x", "y", "steps", "rate"), labelled)


def _exact(draw: Draw, columns: int, positions: list[float], steps=2, dtype=torch.float64) -> tuple:
    """No sum is rounded, even in float32. positions: of the weights, in steps."""
    weight = torch.stack([torch.tensor(positions)[draw.order(columns)] for _ in range(2)])
    state = {
        "0.weight": weight * torch.tensor([[0.5], [0.25]]),
        "0.bias": draw.integers(-2, 3, 2) / 2,
        "0.step": torch.tensor([[0.5], [0.25]]),
    }
    x, y = draw.integers(-3, 4, 8, columns), draw.integers(-9, 10, 8, 2)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    return state, x.to(dtype), y.to(dtype), steps, 0.125


def _codes_of_the_weights(inputs: dict, value: dict[str, Tensor]) -> bool:
    state = inputs["state"]
    for i in range(len(state) // 3):
        place = (value[f"{i}.weight"] / state[f"{i}.step"].cpu()).clamp(-3, 3)
        if ((place - value[f"{i}.codes"]).abs() > 0.5001).any():
            return False
    return True


def _loop(learns=True, clips=True, steps_stay=True, rounds_what_it_holds=False, floats=True):
    """train_rounded with faults of the given loop left in it, or with others."""

    def wrong(state, x, y, steps, rate):
        layers = range(len(state) // 3)
        state = {name: tensor.clone() for name, tensor in state.items()}
        trained = {k: t.requires_grad_() for k, t in state.items() if not k.endswith("step")}

        def step_of(i: int) -> Tensor:
            if steps_stay:
                return state[f"{i}.step"]
            return state[f"{i}.weight"].detach().abs().amax(1, keepdim=True) / 3

        def rounded(i: int) -> Tensor:
            weight, step = state[f"{i}.weight"], step_of(i)
            level = step * (weight.detach() / step).clamp(-3, 3).round()
            if not learns:
                return level
            through = weight.clamp(-3 * step, 3 * step) if clips else weight
            return through + (level - through).detach()

        optimizer = torch.optim.SGD(trained.values(), lr=rate)
        for _ in range(steps):
            z = x
            for i in layers:
                z = F.linear(z.tanh() if i else z, rounded(i), state[f"{i}.bias"])
            optimizer.zero_grad()
            F.mse_loss(z, y).backward()
            optimizer.step()
            for i in layers if rounds_what_it_holds else ():
                state[f"{i}.weight"].data.copy_(rounded(i).detach())
        codes = {}
        for i in layers:
            place = state[f"{i}.weight"].detach() / step_of(i)
            codes[f"{i}.codes"] = place.clamp(-3, 3).round().to(torch.int8)
            if not floats:
                state[f"{i}.weight"].data.copy_(rounded(i).detach())
        return {name: tensor.detach() for name, tensor in trained.items()} | codes

    return wrong


TRAIN_ROUNDED = Exercise(
    reference=train_rounded,
    cases=_networks,
    relative_tolerance=1e-8,  # float64, and float32 where nothing is rounded
    absolute_tolerance=1e-17,  # there are weights of 1e-9
    hints=(
        "Look at the weights after one step, and after five. Which tensors moved, and which came "
        "back as they went in? Who asked autograd to look away?",
        "What is made under no_grad has no gradient, so W never learns. Let round pass it on: p + "
        "(p.round() - p).detach() is round(p), and its gradient is that of p. And if W is rounded "
        "after each step, a step that does not reach the next level is forgotten: 0.1 of the way, "
        "ten times, goes nowhere. And who said that s follows W?",
        "Three repairs. In each pass: p = (W / s).clamp(-3, 3), then s * (p + (p.round() - "
        "p).detach()), without no_grad. Never write into W but by the optimizer: codes are made of "
        'W at the end. Take s = state[f"{i}.step"], which stays.',
    ),
    properties=(
        Property(
            "the codes are those of the returned weights, at the steps given", _codes_of_the_weights
        ),
    ),
    misconceptions=(
        Misconception(
            "as given",
            as_given,
            "the loop is as it was. The weights get no gradient, for they were rounded under "
            "no_grad; they are rounded in place after each step; and the levels are not those "
            "given.",
        ),
        Misconception(
            "the weights do not learn",
            _loop(learns=False),
            "the biases learn, and the weights came back as they went in: their gradient ends at "
            "the rounding. Let it through: p + (p.round() - p).detach().",
        ),
        Misconception(
            "rounded after each step",
            _loop(rounds_what_it_holds=True),
            "W is rounded after each step. Then a step that does not reach the next level is lost, "
            "and all later ones with it. Keep W a float, and round a copy in each pass.",
        ),
        Misconception(
            "levels that follow the weights",
            _loop(steps_stay=False),
            "the steps s were fitted anew to W in each pass. The largest weight of a row then "
            "moves all levels of the row. Here s stays as given.",
        ),
        Misconception(
            "a gradient beyond the last level",
            _loop(clips=False),
            "weights beyond the last level learned, too. Their level does not change when they "
            "move a little: clamp(W / s, −3, 3) has the gradient 0 there. Take it before round.",
        ),
        Misconception(
            "the rounded weights returned",
            _loop(floats=False),
            'all was learned rightly, and "i.weight" came back rounded. It is the float W, from '
            "which a training could go on; the rounded ones are in the codes.",
        ),
    ),
)
