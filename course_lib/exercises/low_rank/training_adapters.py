"""Exercise of 09_low_rank: a loop that trains adapters, to be repaired.

Axes: N examples, I inputs of a layer, O outputs, r rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def train_adapters(
    state: dict[str, Tensor], x: Tensor, y: Tensor, steps: int, rate: float
) -> dict[str, Tensor]:
    """A network's tensors after `steps` steps that trained its adapters, and nothing else.

    Layer i = 0, 1, … has "i.weight" W (O, I), "i.bias" b (O,) and "i.right" A (r, I) in `state`,
    and makes z ← (W + B A) z + b of z, or of tanh(z) from layer 1 on; z is x (N, I) at first. B
    (O, r) starts at 0, A as given. A step sees all of x and lowers the mean square of z − y, by
    torch.optim.AdamW at this rate, weight decay 0.1, the rest as PyTorch has it. Returned: W, b and
    A of each layer, and B as "i.left", in the dtype of all. W and b keep every bit, and `state`
    stays as it is.
    """
    state, layers, adapters = dict(state), range(len(state) // 3), []
    for i in layers:
        right = state[f"{i}.right"].clone()
        left = right.new_zeros(len(state[f"{i}.bias"]), len(right))
        state |= {f"{i}.left": left, f"{i}.right": right}
        adapters += [left.requires_grad_(), right.requires_grad_()]
    optimizer = torch.optim.AdamW(adapters, lr=rate, weight_decay=0.1)
    for _ in range(steps):
        z = x
        for i in layers:
            weight = state[f"{i}.weight"] + state[f"{i}.left"] @ state[f"{i}.right"]
            z = F.linear(z.tanh() if i else z, weight, state[f"{i}.bias"])
        loss = F.mse_loss(z, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in state.items()}


def as_given(
    state: dict[str, Tensor], x: Tensor, y: Tensor, steps: int, rate: float
) -> dict[str, Tensor]:
    """The loop that the lesson prints for repair. It runs, and three things are wrong with it."""
    state = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    layers = range(len(state) // 3)
    for i in layers:  # B A is 0: the first step starts from the network as it is
        right = torch.zeros_like(state[f"{i}.right"])
        left = right.new_zeros(len(state[f"{i}.bias"]), len(right))
        state |= {f"{i}.left": left.requires_grad_(), f"{i}.right": right.requires_grad_()}
    optimizer = torch.optim.AdamW(state.values(), lr=rate, weight_decay=0.1)
    for _ in range(steps):
        z = x
        for i in layers:
            weight = state[f"{i}.weight"] + state[f"{i}.left"] @ state[f"{i}.right"]
            z = F.linear(z.tanh() if i else z, weight, state[f"{i}.bias"])
        loss = F.mse_loss(z, y)
        optimizer.zero_grad()
        loss.backward()
        for i in layers:  # W and b are frozen: they have no gradient
            state[f"{i}.weight"].grad.zero_()
            state[f"{i}.bias"].grad.zero_()
        optimizer.step()
        with torch.no_grad():
            for i in layers:  # the network has what was learned
                state[f"{i}.weight"] += state[f"{i}.left"] @ state[f"{i}.right"]
    return {name: tensor.detach() for name, tensor in state.items()}


def _networks(seed: int) -> list[Case]:
    draw = Draw(seed)

    def network(*widths: int, rank=2, steps=4, rate=0.05, examples=8, scale=1.0, double=True):
        """Its targets are another network's outputs, so that there is something to learn."""
        state = {}
        for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
            state[f"{i}.weight"] = scale * draw.normal(outputs, inputs).double() / inputs**0.5
            state[f"{i}.bias"] = scale * draw.normal(outputs).double() / 3
            state[f"{i}.right"] = draw.normal(rank, inputs).double() / inputs**0.5
        x, y = draw.normal(examples, widths[0]), 2 * draw.normal(examples, widths[-1])
        dtype = torch.float64 if double else torch.float32
        return {k: t.to(dtype) for k, t in state.items()}, x.to(dtype), y.to(dtype), steps, rate

    steps = draw.number(3, 7)
    (state, *rest), (silent, x, *others) = network(4, 5, 5, 3), network(5, 4)
    labelled = {
        "one layer, one step": network(4, 3, steps=1),
        "one layer, two steps": network(4, 3, steps=2),
        "one layer": network(5, 4, steps=steps),
        "two layers": network(5, 6, 3, steps=steps),
        "three layers": network(4, 5, 5, 2, steps=steps),
        "twelve layers": network(3, 4, 2, 3, 3, 2, 4, 3, 2, 3, 4, 3, 2, steps=2),
        "three layers, named in another order": (dict(sorted(state.items())[::-1]), *rest),
        "gradients as small as AdamW's epsilon": (silent, 1e-8 * x, *others),
        "many steps": network(4, 5, 3, steps=25, rate=0.02),
        "no step": network(4, 5, 3, steps=0),
        "rank 1": network(5, 6, 3, rank=1),
        "a rank above the widths": network(3, 2, 2, rank=5),
        "a large base, whose decay would show": network(4, 5, 3, scale=50.0, rate=0.001),
        "a large rate": network(4, 5, 3, rate=1.0),
        "a rate so large that the loss rises": network(4, 3, rate=8.0, examples=20),
        "a small rate": network(4, 5, 3, rate=1e-4),
        "one example, one output": network(4, 5, 1, examples=1),
        "float32": network(5, 6, 3, steps=steps, double=False),
    }
    return labelled_cases(("state", "x", "y", "steps", "rate"), labelled)


def _keeps_the_base(inputs: dict, value: dict[str, Tensor]) -> bool:
    base = {k: t for k, t in inputs["state"].items() if not k.endswith("right")}
    return all(value[name].equal(tensor.cpu()) for name, tensor in base.items())


def _loop(trained=("left", "right"), decayed=(), start_right=True, merge=False):
    """train_adapters with other trained tensors, or with faults of the given loop left in it."""

    def wrong(state, x, y, steps, rate):
        state, layers = {k: t.clone() for k, t in state.items()}, range(len(state) // 3)
        for i in layers:
            right = state[f"{i}.right"]
            state[f"{i}.left"] = right.new_zeros(len(state[f"{i}.bias"]), len(right))
            state[f"{i}.right"] = right if start_right else torch.zeros_like(right)
        held = [t.requires_grad_() for k, t in state.items() if k.endswith((*trained, *decayed))]
        optimizer = torch.optim.AdamW(held, lr=rate, weight_decay=0.1)
        for _ in range(steps):
            z = x
            for i in layers:
                weight = state[f"{i}.weight"] + state[f"{i}.left"] @ state[f"{i}.right"]
                z = F.linear(z.tanh() if i else z, weight, state[f"{i}.bias"])
            optimizer.zero_grad()
            F.mse_loss(z, y).backward()
            for name, tensor in state.items():
                if decayed and name.endswith(decayed):
                    tensor.grad.zero_()
            optimizer.step()
            for i in layers if merge else ():
                state[f"{i}.weight"].data += (state[f"{i}.left"] @ state[f"{i}.right"]).detach()
        return {name: tensor.detach() for name, tensor in state.items()}

    return wrong


TRAIN_ADAPTERS = Exercise(
    reference=train_adapters,
    cases=_networks,
    relative_tolerance=1e-4,
    hints=(
        "Look at what comes back, tensor by tensor. Which changed that should not have? Which did "
        "not change at all? After one step, and after two.",
        "AdamW shrinks whatever it holds, by 1 − rate · decay in each step: a gradient of 0 does "
        "not protect. And with z = W x + B A x, the gradient of B is a product with A, that of A a "
        "product with B: what if both are 0? And how often does W + B A count a B A that W has?",
        "Three repairs. Give the optimizer the adapters alone, and let nothing else ask for a "
        "gradient. Start B at 0 and A as given. Leave W alone in the loop: W + B A is made anew in "
        "each step.",
    ),
    properties=(Property("W and b of every layer have the bits that they had", _keeps_the_base),),
    misconceptions=(
        Misconception(
            "as given",
            as_given,
            "the loop is as it was. Nothing is learned, for B and A start at 0 and get no "
            "gradient; and W and b shrink in each step, for AdamW decays what it holds.",
        ),
        Misconception(
            "the base still decays",
            _loop(decayed=("weight", "bias")),
            "W and b have gradients of 0, and still shrink: weight decay needs no gradient. What "
            "is frozen must not be in the optimizer.",
        ),
        Misconception(
            "both start at 0",
            _loop(start_right=False),
            "A starts at 0, as B does. The gradient of B is a product with A, and that of A with "
            "B: both are 0, for ever. One of them must start elsewhere; A as given.",
        ),
        Misconception(
            "added in each step",
            _loop(merge=True),
            "B A is added to W after each step, and again in the next pass: W + B A counts all "
            "the steps so far once more. Merge at the end, if at all; here W stays.",
        ),
        Misconception(
            "biases learn",
            _loop(trained=("left", "right", "bias")),
            "the biases are trained, too. They belong to the base: whoever loads the adapters "
            "beside the old base would miss what the biases have learned.",
        ),
        Misconception(
            "B alone learns",
            _loop(trained=("left",)),
            "A stays as it was drawn. Its gradient is 0 in the first step alone, while B is 0; "
            "from then on both learn.",
        ),
    ),
)
