"""What is really faster: a layer in every format beside the roofline; SmolLM2 on packed weights.

    OMP_NUM_THREADS=1 python -m benchmarks.acceleration           2 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.acceleration layers    the first half alone
    OMP_NUM_THREADS=1 python -m benchmarks.acceleration decode    the second

Times are CPU seconds of one thread; the sides take turns, and the figure is the median. The
roofline's two numbers are the best of many tries in the same process.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import Comparison, cpu_seconds, record
from benchmarks.structured import processor
from course_lib.acceleration.fusion import fuse_model
from course_lib.acceleration.kernels import Int4WeightLinear, Int8Linear, Int8WeightLinear
from course_lib.acceleration.packed_model import (
    fast_model,
    fast_schemes,
    packed_bytes,
    packed_model,
)
from course_lib.acceleration.roofline import Machine, bound, measure_machine
from course_lib.acceleration.sparse_linear import BsrLinear, CsrLinear
from course_lib.acceleration.trials import available
from course_lib.acceleration.work import decoder_work, linear_work
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import quantize_model
from course_lib.models.llama import generate
from course_lib.models.pretrained import smollm2

SIZE, BATCHES = 4096, (1, 8, 64)
ROWS = Scheme(Format(8, symmetric=True), "channel")
PROMPTS = (
    "Once upon a time there was a king who",
    "The capital of France is",
    "Water boils at",
    "In the beginning God created the heaven and the earth.",
)
FOUR = Scheme(Format(4), 32)
GOALS = {  # (side, batch) -> what is asked of its ratio to float32
    ("int4 weights", 1): "≤ 0.4",
    ("int8 weights", 1): "≤ 0.5",
    ("int8 both sides", 64): "≤ 0.5",
    ("half masked", 1): "1.0",
    ("half masked", 64): "1.0",
    ("90 % zeros, CSR", 1): "< 1",
    ("90 % zeros, BSR", 1): "< 1",
}

Side = tuple[Callable[[Tensor], Tensor], torch.dtype, dict]

# ---------------------------------------------------------------- one layer


def sides_of(weight: Tensor) -> dict[str, Side]:
    """Name -> the layer, the dtype of its products, and what `linear_work` is told of it.

    The kernels for packed weights make float32 numbers of both sides, and multiply those.
    """
    four, eight = nearest_codes(weight, Scheme(Format(4), 64)), nearest_codes(weight, ROWS)
    ones = torch.rand(weight.shape)
    tiles = (torch.rand(SIZE // 16, SIZE // 16) < 0.1).repeat_interleave(16, 0)
    tiles = tiles.repeat_interleave(16, 1)
    half, low = weight.bfloat16(), {"activation_bits": 16}
    masked = weight * (ones < 0.5)
    slow = {"dtype": torch.float32}  # the same kernels, given what they were not written for
    f32, b16 = torch.float32, torch.bfloat16
    return {
        "float32": (lambda x: F.linear(x, weight), f32, {}),
        "bfloat16": (lambda x: F.linear(x.bfloat16(), half), b16, low | {"weight_bits": 16}),
        "int8 both sides": (Int8Linear(eight), torch.int8, {"weight_bits": 8}),
        "int8 weights": (Int8WeightLinear(eight), f32, low | {"weight_bits": 8}),
        "int4 weights": (Int4WeightLinear(four), f32, low | {"weight_bits": 4.5}),
        "half masked": (lambda x: F.linear(x, masked), f32, {}),
        "90 % zeros, CSR": (
            CsrLinear(weight * (ones < 0.1)), f32, {"weight_bits": 64, "density": 0.1}
        ),
        "90 % zeros, BSR": (BsrLinear(weight * tiles), f32, {"density": 0.1}),
        "int8 weights, float32 inputs": (
            Int8WeightLinear(eight, **slow), f32, {"weight_bits": 8}
        ),
        "int4 weights, float32 inputs": (Int4WeightLinear(four, **slow), f32, {"weight_bits": 5}),
    }  # fmt: skip


@torch.no_grad()
def layers_table() -> None:
    """Each side at each batch: milliseconds, ratio to float32, and what the roofline allows."""
    torch.manual_seed(0)
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, one thread; missing kernels: ", end="")
    print({name: why for name, why in available().items() if why} or "none")
    machines = machines_here()
    sides = sides_of(torch.randn(SIZE, SIZE) * 0.02)
    for batch in BATCHES:
        x = torch.randn(batch, SIZE)
        calls = {name: lambda f=layer, x=x: f(x) for name, (layer, _, _) in sides.items()}
        slow = {name: calls.pop(name) for name in list(calls) if "float32 inputs" in name}
        seconds = cpu_seconds(calls, 15) | cpu_seconds(slow, 3)
        dense = seconds["float32"]
        print(f"A layer of {SIZE} × {SIZE}, batch {batch}            ms   ratio   roofline's")
        for name, (_, dtype, told) in sides.items():
            least = bound(linear_work(batch, SIZE, SIZE, **told), machines[dtype])
            print(f"    {name:32} {1000 * seconds[name]:9.2f} {seconds[name] / dense:7.2f}", end="")
            print(f" {1000 * least:9.2f}", end="")
            goal = GOALS.get((name, batch), "")
            print(f"   (goal {goal})" if goal else "", flush=True)
            if goal[:1] in {"≤", "<"}:
                at_most, beside = float(goal[1:]), {n: seconds[n].turns for n in (name, "float32")}
                title = f"a layer of {SIZE} × {SIZE}, batch {batch}"
                record(Comparison(title, beside, at_most, method=name))


def machines_here() -> dict[torch.dtype, Machine]:
    """The machine in each kind of number."""
    kinds = torch.float32, torch.bfloat16, torch.int8
    found = {dtype: measure_machine(dtype, 1.0, clock=time.process_time) for dtype in kinds}
    for dtype, machine in found.items():
        print(f"    {str(dtype):16} {machine.bandwidth / 1e9:6.1f} GB/s ", end="")
        print(f"{machine.peak / 1e9:7.0f} G operations/s, ridge {machine.ridge:5.1f}")
    return found


# ---------------------------------------------------------------- SmolLM2, token by token


@torch.no_grad()
def decode_table(count: int = 32) -> None:
    """Milliseconds a token, prompt included; the roofline's; megabytes; is the text the same?"""
    model, tokenizer = smollm2()
    prompts = [torch.tensor([tokenizer.encode(prompt).ids]) for prompt in PROMPTS]
    four, eight = fast_schemes(model, FOUR), fast_schemes(model, ROWS)
    models = {
        "float32": model,
        "float32, fused": fuse_model(model),
        "int8 both sides": packed_model(model, eight, both_sides=True),
        "int8 weights": fast_model(model, ROWS),
        "int4, not joined": packed_model(model, four),
        "int4 weights": fast_model(model, FOUR),
    }
    calls = {n: lambda m=m: generate(m, prompts[0], count) for n, m in models.items()}
    seconds, machine = cpu_seconds(calls, 5), measure_machine(clock=time.process_time)
    print(f"SmolLM2, {count} tokens one by one       ms a token   ratio   roofline's    MB")
    for name, m in models.items():
        bits = {"float32": 32, "int8": 8}.get(name.partition(" ")[0].strip(","), 5)
        work = decoder_work(model.config, 1, 1, 16, bits, head_bits=min(32, max(bits, 8)))
        least = sum(bound(part, machine) for part in work.values())
        print(f"    {name:28} {1000 * seconds[name] / count:13.1f} ", end="")
        print(f"{seconds[name] / seconds['float32']:7.3f} {1000 * least:12.1f} ", end="")
        print(f"{packed_bytes(m) / 1e6:5.0f}" + ("   (goal ≤ 0.42)" * (name == "int4 weights")))
    beside = {name: seconds[name].turns for name in ("int4 weights", "float32")}
    record(Comparison(f"SmolLM2, {count} tokens one by one", beside, 0.42, "int4 weights"))
    for name, schemes in {"int8 weights": eight, "int4 weights": four}.items():
        same_text(name, models[name], quantize_model(model, schemes), prompts)


def same_text(name: str, fast, twin, prompts: list[Tensor], count: int = 48) -> None:
    """How many tokens of greedy texts are the float32 twin's choice, and how near are others?"""
    behind = []
    for prompt in prompts:
        text = generate(fast, prompt, count)
        logits = twin(text[:, :-1])[0, prompt.shape[1] - 1 :]  # (T, V)
        behind.append(logits.amax(1) - logits.gather(1, text[0, prompt.shape[1] :, None])[:, 0])
    behind = torch.cat(behind)
    print(
        f"    {name}: {(behind == 0).sum()} of {len(behind)} tokens are its float32 twin's ", end=""
    )
    print(f"choice, the others {behind.max():.2f} logits behind it at most", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {"layers": layers_table, "decode": decode_table}
    if set(sys.argv[1:]) - tables.keys():
        sys.exit("python -m benchmarks.acceleration [layers] [decode]")
    for table in sys.argv[1:] or tables:
        tables[table]()
