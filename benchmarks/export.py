"""What other people's engines make of our models: bytes, error, and speed beside ours.

    python benchmarks/export.py            TinyLM in all three, some two minutes of one core
    python benchmarks/export.py smollm2    and SmolLM2 in llama.cpp, a minute more and 1 GB of files

Speeds are medians of runs in turn, on one thread, in CPU seconds. llama.cpp's prefill is by its own
clock, which is the wall's: on a busy machine it looks slower than it is.
Error is the norm of the difference of all logits over the norm of ours.
"""

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from course_lib.acceleration.export import executorch, onnx
from course_lib.acceleration.export.llama_cpp import LlamaCpp
from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Scheme, nearest_codes
from course_lib.models.llama import Llama, generate
from course_lib.models.pretrained import read_llama, smollm2, tiny
from course_lib.quantization.linear import Format

LENGTH = 128  # tokens that the graphs read at once
TEXT = "In the beginning God created the heaven and the earth. And the earth was"
SCHEMES = {
    "F32": None,
    "F16": None,
    "Q8_0": Scheme(Format(8, symmetric=True), 32),
    "Q4_1": Scheme(Format(4), 32, q4_1_range),
    "Q4_0": Scheme(Format(4, symmetric=True), 32),
}


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def graphs(model: Llama, folder: Path) -> None:
    """ONNX and ExecuTorch: a pass over 128 tokens without a cache."""
    tokens = torch.randint(2048, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    files, runs = {}, {"ours": lambda: model(tokens)}
    for name in ("float32", "int8"):
        files[f"onnx {name}"] = folder / f"{name}.onnx"
    made = seconds(lambda: onnx.export_onnx(model, files["onnx float32"]))
    print(f"onnx float32         written in {made:.1f} s")
    onnx.quantize_onnx(files["onnx float32"], files["onnx int8"])
    for name, path in files.items():
        runs[name] = partial(onnx.run_onnx, onnx.open_onnx(path), tokens)
    for kind in executorch.KINDS:
        path = files[f"executorch {kind}"] = folder / f"{kind}.pte"
        made = seconds(partial(executorch.export_executorch, model, path, LENGTH, kind))
        print(f"executorch {kind:<9} written in {made:.1f} s")
        method = executorch.open_executorch(path)
        runs[f"executorch {kind}"] = partial(executorch.run_executorch, method, tokens[0])
    took = {name: [] for name in runs}
    for _ in range(21):
        for name, run in runs.items():
            took[name].append(seconds(run))
    expected = model(tokens)
    for name, path in files.items():
        error = (runs[name]().view_as(expected) - expected).norm() / expected.norm()
        ratio = median(a / b for a, b in zip(took[name], took["ours"], strict=True))
        size = path.stat().st_size / 1e6
        print(f"{name:<20} {size:6.2f} MB   error {error:.1e}   time {ratio:.2f} of ours")


def gguf(model: Llama, tokenizer, count: int, folder: Path) -> None:
    """llama.cpp: decoding with a cache."""
    tokens = torch.tensor(tokenizer.encode(TEXT).ids)
    engines = {}
    for kind, scheme in SCHEMES.items():
        source, codes = (copy.deepcopy(model).half() if kind == "F16" else model), {}
        if scheme:
            matrices = ((n, w) for n, w in model.named_parameters() if w.dim() == 2)
            codes = {name: nearest_codes(weight, scheme) for name, weight in matrices}
        write_gguf(folder / f"{kind}.gguf", source, tokenizer, codes)
        engines[kind] = LlamaCpp(folder / f"{kind}.gguf")
    decode, prefill, ours = {k: [] for k in engines}, {k: [] for k in engines}, []
    written = {}
    for _ in range(5):
        for kind, engine in engines.items():
            start = time.process_time()
            written[kind] = engine.write(tokens, count)
            decode[kind].append(count / (time.process_time() - start))
            prefill[kind].append(written[kind].prefill)
        ours.append(count / seconds(lambda: generate(model, tokens[None], count)))
    print(f"ours, float32: {median(ours):.0f} tokens a second")
    for kind in engines:
        path = folder / f"{kind}.gguf"
        ratio = median(a / b for a, b in zip(decode[kind], ours, strict=True))
        same = _same(read_llama(path)[0], tokens, written[kind].tokens)
        print(
            f"llama.cpp {kind:<5} {path.stat().st_size / 1e6:7.2f} MB   "
            f"decode {median(decode[kind]):5.0f} tokens/s, {ratio:.1f} times ours   "
            f"prefill {median(prefill[kind]):5.0f}   {same} of {count} tokens as ours"
        )


def _same(model: Llama, tokens: Tensor, written: Tensor) -> int:
    """How many tokens are those that our arithmetic writes from the same file."""
    ours = generate(model, tokens[None], len(written))[0, len(tokens) :]
    return int((ours == written).sum())


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        model, tokenizer = tiny()
        graphs(model, Path(folder))
        gguf(model, tokenizer, 64, Path(folder))
        if sys.argv[1:] == ["smollm2"]:
            print("SmolLM2")
            gguf(*smollm2(), 24, Path(folder))


if __name__ == "__main__":
    main()
