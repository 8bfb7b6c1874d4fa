"""Exercises of 00_start_here: count parameters, count bytes, compare models."""

import math

import torch
from torch import Tensor, nn

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.models.awkward import FreeParameters, TiedModel

# ---------------------------------------------------------------------- count_parameters


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learned, each counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _models(seed: int) -> list[Case]:
    draw = Draw(seed)
    a, b, c, d = draw.integers(2, 12, 4).tolist()

    def build() -> dict[str, nn.Module]:
        shared = nn.Linear(a, a)
        frozen = nn.Sequential(nn.Linear(b, c), nn.ReLU(), nn.Linear(c, 2))
        frozen[0].requires_grad_(False)
        return {
            "one linear layer": nn.Linear(a, b),
            "tied weights": TiedModel(tokens=a + c, width=b),
            "a layer used twice": nn.Sequential(shared, nn.ReLU(), shared),
            "two layers that hold the same numbers": nn.Sequential(
                nn.LayerNorm(d), nn.LayerNorm(d)
            ),
            "a norm with running statistics": nn.Sequential(nn.Linear(c, d), nn.BatchNorm1d(d)),
            "one layer frozen": frozen,
            "half precision": nn.Linear(c, a).half(),
            "filters of an image": nn.Conv2d(a, b, 3),
            "parameters outside of layers": FreeParameters(c, d),
            "modules in modules in modules": nn.Sequential(
                nn.Sequential(FreeParameters(a, d), nn.Sequential(nn.Linear(d, b, bias=False)))
            ),
            "nothing to learn": nn.Sequential(nn.ReLU(), nn.Flatten()),
        }

    models = draw.module(build)
    return labelled_cases(("model",), {label: (model,) for label, model in models.items()})


def _count_state_dict(model):
    return sum(tensor.numel() for tensor in model.state_dict().values())


def _count_tensors(model):
    return len(list(model.parameters()))


def _count_matrices(model):
    return sum(p.numel() for p in model.parameters() if p.dim() == 2)


def _count_trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count_names(model):
    return sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))


def _count_modules(model):
    return sum(p.numel() for module in model.modules() for p in module.parameters())


COUNT_PARAMETERS = Exercise(
    reference=count_parameters,
    cases=_models,
    hints=(
        "A model can list its parameters: what does model.parameters() give you?",
        "Each parameter is a tensor. A tensor of shape (3, 2) holds six numbers: tensor.numel().",
        "model.parameters() names a tied matrix once; model.state_dict() names it twice, and "
        "holds running statistics as well.",
    ),
    misconceptions=(
        Misconception(
            "state dict",
            _count_state_dict,
            "you counted the state dict. It lists a tied matrix under both of its names, and it "
            "holds buffers (a norm's running statistics) that nobody learned.",
        ),
        Misconception(
            "tensors instead of numbers",
            _count_tensors,
            "you counted tensors. A matrix of shape (3, 2) is one tensor but six parameters.",
        ),
        Misconception(
            "matrices only",
            _count_matrices,
            "only matrices were counted. Biases and norms are vectors, and are learned too.",
        ),
        Misconception(
            "trainable only",
            _count_trainable,
            "frozen parameters were left out. They take part in every prediction and in every "
            "file; requires_grad only says whether training may change them.",
        ),
        Misconception(
            "tied weights twice",
            _count_names,
            "a tied matrix was counted once for each of its names. It is stored once.",
        ),
        Misconception(
            "nested modules",
            _count_modules,
            "you walked over all modules and asked each for all its parameters. A module's "
            "parameters() already includes those of the modules inside it.",
        ),
    ),
)

# -------------------------------------------------------------------------- packed_bytes


def packed_bytes(tensors: dict[str, Tensor], bits: dict[str, int]) -> int:
    """Bytes of all tensors when tensor `name` keeps bits[name] bits a number.

    Each tensor begins with a fresh byte. Without an entry in `bits` it stays as it is, whatever
    its dtype; 0 bits keep nothing of it.
    """
    total = 0
    for name, tensor in tensors.items():
        width = bits.get(name, 8 * tensor.element_size())
        total += math.ceil(tensor.numel() * width / 8)
    return total


def _state_dicts(seed: int) -> list[Case]:
    draw = Draw(seed)
    matrix, odd, norm = torch.zeros(16, 8), torch.zeros(3, 3), torch.zeros(16)
    codes, half = torch.zeros(3, 3, dtype=torch.int8), norm.half()
    several = {"a": odd, "b": odd.clone(), "c": odd.clone()}
    rest = {"doubles": torch.zeros(3, 1, 2).double(), "flags": torch.ones(5) > 0}
    cases = {
        "an odd number of 4-bit numbers": ({"odd": odd}, {"odd": 4}),
        "ten 4-bit numbers": ({"ten": torch.zeros(2, 5)}, {"ten": 4}),
        "six 3-bit numbers": ({"six": torch.zeros(2, 3)}, {"six": 3}),
        "everything as it is": ({"matrix": matrix}, {}),
        "one matrix at 4 bits": ({"matrix": matrix}, {"matrix": 4}),
        "three odd tensors": (several, {"a": 1, "b": 1, "c": 1}),
        "a norm stays float32": ({"matrix": matrix, "norm": norm}, {"matrix": 8}),
        "the rest is float16": ({"matrix": matrix, "norm": half}, {"matrix": 2}),
        "the rest is int8": ({"matrix": matrix, "codes": codes}, {"matrix": 2}),
        "the rest is float64 and bool": ({"matrix": matrix, **rest}, {"matrix": 3}),
        "nothing kept of one": ({"odd": odd, "norm": norm}, {"norm": 0}),
        "more bits than before": ({"odd": odd, "codes": codes}, {"codes": 12}),
        "part of a larger tensor": ({"part": matrix[:5, :3]}, {}),
        "one number, and none": ({"one": torch.tensor(2.0), "none": norm[:0]}, {"one": 3}),
        "no tensor at all": ({}, {}),
        "many tensors": _random_state_dict(draw),
        "many other tensors": _random_state_dict(draw),
    }
    return labelled_cases(("tensors", "bits"), cases)


def _random_state_dict(draw: Draw) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Nine tensors of odd sizes and four dtypes; two in three have an entry of 1 to 8 bits."""
    dtypes = (torch.float32, torch.float16, torch.int8, torch.float64)
    sizes, kinds = draw.integers(1, 40, 9, 2).tolist(), draw.integers(0, 4, 9).tolist()
    tensors = {
        f"layer {i}": torch.zeros(size, dtype=dtypes[kind])
        for i, (size, kind) in enumerate(zip(sizes, kinds, strict=True))
    }
    listed = draw.order(9)[:6].tolist()
    return tensors, {f"layer {i}": draw.number(1, 9) for i in listed}


def _bits_not_bytes(tensors, bits):
    return sum(t.numel() * bits.get(name, 8 * t.element_size()) for name, t in tensors.items())


def _rounded_down(tensors, bits):
    return sum(t.numel() * bits.get(name, 8 * t.element_size()) // 8 for name, t in tensors.items())


def _rounded_once(tensors, bits):
    return math.ceil(_bits_not_bytes(tensors, bits) / 8)


def _rest_is_float32(tensors, bits):
    return sum(math.ceil(t.numel() * bits.get(name, 32) / 8) for name, t in tensors.items())


def _rest_left_out(tensors, bits):
    return sum(math.ceil(t.numel() * bits[name] / 8) for name, t in tensors.items() if name in bits)


def _a_byte_each(tensors, bits):
    return sum(
        t.numel() * math.ceil(bits.get(name, 8 * t.element_size()) / 8)
        for name, t in tensors.items()
    )


PACKED_BYTES = Exercise(
    reference=packed_bytes,
    cases=_state_dicts,
    hints=(
        "A tensor of n numbers at b bits each needs n · b bits. Eight bits are a byte.",
        "tensor.element_size() is the number of bytes that one of its numbers takes now.",
        "Nine 4-bit numbers are 36 bits, so they fill four bytes and half of a fifth. The next "
        "tensor begins with a byte of its own: round up, for each tensor.",
    ),
    misconceptions=(
        Misconception(
            "bits instead of bytes",
            _bits_not_bytes,
            "that is the number of bits. Eight of them make a byte.",
        ),
        Misconception(
            "rounded down",
            _rounded_down,
            "you rounded down. The last bits of a tensor need a byte too, even if they fill only "
            "a part of it.",
        ),
        Misconception(
            "rounded once at the end",
            _rounded_once,
            "you added up all the bits and rounded once. Each tensor begins with a new byte, so "
            "each one is rounded up by itself.",
        ),
        Misconception(
            "the rest is float32",
            _rest_is_float32,
            "a tensor without an entry in `bits` was counted at 32 bits. It stays as it is, and "
            "it may be float16: ask tensor.element_size().",
        ),
        Misconception(
            "the rest is left out",
            _rest_left_out,
            "tensors without an entry in `bits` were left out. They are in the file all the same; "
            "published compression ratios have been wrong by this much.",
        ),
        Misconception(
            "a byte for each number",
            _a_byte_each,
            "each number was given whole bytes. Two 4-bit numbers share one byte: that is what "
            "packing means.",
        ),
    ),
)

# ------------------------------------------------------------------------- bits_per_byte


def bits_per_byte(losses: Tensor, text: str) -> Tensor:
    """Bits that the model needs for each byte of `text`: a 0-d tensor, in the dtype of `losses`.

    losses: the loss of each token, in nats. text: any letters; its bytes are those of UTF-8.
    """
    return losses.sum() / math.log(2) / len(text.encode("utf-8"))


def _losses(seed: int) -> list[Case]:
    draw = Draw(seed)

    def some(count: int) -> Tensor:
        return 0.1 + 4 * draw.uniform(count)

    def words(count: int) -> str:
        known = ("in", "the", "beginning", "naïve", "was", "a", "word", "über", "it")
        return " ".join(known[i] for i in draw.integers(0, len(known), count))

    inputs = {
        "one token, one byte": (torch.tensor([math.log(2)]), "a"),
        "six tokens": (some(6), "the cat sat on the mat"),
        "letters that take two bytes": (some(5), "Zoë überlässt Åse Öl"),
        "letters that take three bytes": (some(4), "语言模型"),
        "a face takes four": (some(3), "fine 🙂"),
        "white space at both ends": (some(3), " \n a line\r\n"),
        "a certain model": (torch.zeros(5), words(4)),
        "an impossible token": (torch.tensor([0.5, math.inf, 2.0]), words(3)),
        "losses in float64": (some(7).double(), words(5)),
        "less than float32 can hold": (1e-60 * some(7).double(), words(5)),
        "hardly any loss": (1e-9 * some(9), words(6)),
        "one far token": (torch.cat([some(8), 1e9 * some(1)]), words(6)),
        "a long text": (some(300), words(250 + draw.number(0, 50))),
    }
    return labelled_cases(("losses", "text"), inputs)


BITS_PER_BYTE = Exercise(
    reference=bits_per_byte,
    cases=_losses,
    absolute_tolerance=0.0,
    hints=(
        "The losses are nats: natural logarithms. How many nats is one bit?",
        "One bit is ln 2 = 0.693 nats. Add up the losses first: the whole text costs their sum.",
        'Bytes are not letters: len("é") is 1, but len("é".encode("utf-8")) is 2.',
    ),
    properties=(
        Property("bits per byte are never negative", lambda inputs, value: bool(value >= 0)),
    ),
    misconceptions=(
        Misconception(
            "nats",
            lambda losses, text: losses.sum() / len(text.encode("utf-8")),
            "that is nats per byte. The loss uses the natural logarithm; divide by ln 2 to have "
            "bits.",
        ),
        Misconception(
            "mean instead of sum",
            lambda losses, text: losses.mean() / math.log(2) / len(text.encode("utf-8")),
            "you took the mean loss, which is per token already, and then divided by the bytes. "
            "The whole text costs the sum.",
        ),
        Misconception(
            "per token",
            lambda losses, text: losses.mean() / math.log(2),
            "that is bits per token. A tokenizer with longer tokens would look worse for no "
            "reason; bytes are the same for everyone.",
        ),
        Misconception(
            "characters",
            lambda losses, text: losses.sum() / math.log(2) / len(text),
            "you divided by characters. A letter such as ë takes two bytes, and 语 takes three.",
        ),
        Misconception(
            "multiplied by ln 2",
            lambda losses, text: losses.sum() * math.log(2) / len(text.encode("utf-8")),
            "the logarithm is the wrong way round: a bit is smaller than a nat, so there are more "
            "of them.",
        ),
        Misconception(
            "perplexity",
            lambda losses, text: losses.mean().exp(),
            "that is perplexity, which counts per token. It cannot compare models whose tokens "
            "differ.",
        ),
    ),
)

CHAPTER = "00_start_here"
EXERCISES = (COUNT_PARAMETERS, PACKED_BYTES, BITS_PER_BYTE)
