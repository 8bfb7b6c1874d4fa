"""A wide model of few bits against a narrow one of many, in equal bytes; and who loses by rounding.

    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware half_width [seed]   5.5 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.quantization_aware longer [seed]       7 CPU minutes

TinyLM was trained on 8.2 million tokens. Here, models of its width, of 3/4 and of 1/2 of it are
trained from scratch on the same 600 steps of 512 tokens, one twenty-seventh of that. None of them
is trained to the end, and the table says nothing of models that are. Then each is trained 100 steps
more, at 0.3 of the rate, with rounded linear layers or as floats; the embedding is rounded after
that. Losses are bits per byte of what the file gives back.

`longer` takes three models of TinyLM's width: trained for 150 of these steps, for 600, and TinyLM.
Each is rounded to few bits, and then trained for 100 steps, as in the program `tinylm`.
"""

import time
from dataclasses import replace

import torch

from benchmarks.quantization_aware import (
    QUANTIZERS,
    drawn_batches,
    from_file,
    learned,
    text_tokens,
    trained,
)
from course_lib.formats.aware import exported
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.llama import Llama, initialize
from course_lib.models.pretrained import TINY, tiny
from course_lib.quantization.aware import aware_model
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format

STEPS, FEW, RATE = 600, 150, 0.3
WIDTHS = {"full width": 192, "3/4": 144, "half width": 96}
# Which width, bits of the linear layers and of the embedding: pairs of equal bytes.
PAIRS = (("full width", 4, 8), ("3/4", 8, 8), ("full width", 2, 4), ("half width", 8, 8))


def loss(model: Llama) -> float:
    """Bits per byte on the held-out sample."""
    return tiny_quality(model, tiny()[1]).bits_per_byte


def from_scratch(width: int, batches: list) -> Llama:
    """A model of TinyLM's shape and that width, trained at the full rate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Llama(replace(TINY, width=width, mlp_width=TINY.mlp_width * width // TINY.width))
        initialize(model)
    return trained(model, batches, 1.0)


def file_of(aware: Llama, like: Llama, embedding: int) -> tuple[float, int]:
    """Loss and bytes of the file in which the embedding, too, has so many bits."""
    plain, schemes = exported(aware)
    rows = Scheme(Format(embedding), "channel", mse_range)
    packed = pack_model(plain, schemes | {"embedding.weight": rows})
    return loss(unpack_model(packed, like)), size(packed).bytes


def table(seed: str = "0") -> None:
    """Pairs of models whose files have equal bytes."""
    tokens = text_tokens()
    batches, more = drawn_batches(tokens, 100 + int(seed), STEPS), drawn_batches(tokens, int(seed))
    models = {}
    for name, width in WIDTHS.items():
        start = time.process_time()
        models[name] = from_scratch(width, batches)
        spent = time.process_time() - start
        further = loss(trained(models[name], more, RATE))
        print(
            f"{name:10}  {width} wide  {STEPS} steps {loss(models[name]):.4f}, {spent:.0f} CPU s; "
            f"100 more as floats {further:.4f}", flush=True,
        )  # fmt: skip
    for name, bits, embedding in PAIRS:
        aware = aware_model(models[name], learned(bits))
        before, _ = file_of(aware, models[name], embedding)
        after, count = file_of(trained(aware, more, RATE), models[name], embedding)
        print(
            f"{name:10}  linear layers {bits} bits, embedding {embedding}: rounded {before:.4f}, "
            f"100 more so {after:.4f}  {count:9,} bytes", flush=True,
        )  # fmt: skip


def longer_table(seed: str = "0") -> None:
    """Models of one shape, the less trained first: what rounding costs each, and 100 steps more."""
    tokens = text_tokens()
    batches, more = drawn_batches(tokens, 100 + int(seed), STEPS), drawn_batches(tokens, int(seed))
    models = {f"{n} steps": from_scratch(TINY.width, batches[:n]) for n in (FEW, STEPS)}
    print(f"{'':33} floats  rounded  (above floats)  100 steps more  (above the floats before)")
    for name, model in (models | {"TinyLM": tiny()[0]}).items():
        floats = loss(model)
        for kind, (quantizer, rate) in QUANTIZERS.items():
            aware = aware_model(model, quantizer)
            made = [aware] if kind[0] in "84" else [aware, trained(aware, more, rate)]
            losses = [loss(from_file(side, model)[0]) for side in made]
            texts = "  ".join(f"{value:.4f} ({value - floats:+.4f})" for value in losses)
            print(f"{name:10}  {kind:21}  {floats:.4f}  {texts}", flush=True)
