"""Huffman's code beside dahuffman, and what even levels, vectors and Deep Compression reach.

    OMP_NUM_THREADS=1 python -m benchmarks.coding               Huffman: times and sizes
    OMP_NUM_THREADS=1 python -m benchmarks.coding limits        decibels at equal bytes
    OMP_NUM_THREADS=1 python -m benchmarks.coding tinylm        TinyLM's loss at equal bytes
    OMP_NUM_THREADS=1 python -m benchmarks.coding digits        Deep Compression, five seeds

The first needs `pip install dahuffman`. Times are CPU seconds of one thread, the median; the sides
take turns. Decibels are 10 log₁₀ Σ x² / Σ (x − x̂)²; every size is that of the parts in a file.
"""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.measuring import QUICK, cpu_seconds, report, run_tables
from course_lib.data.images import Digits, digits
from course_lib.deep_compression import Recipe, deep_compression
from course_lib.formats.bits import decode_bits, encode_bits
from course_lib.formats.entropy import code_entropy
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import (
    AnyScheme,
    pack_model,
    pack_tensors,
    unpack_model,
    unpack_tensors,
)
from course_lib.formats.vectors import Vectors
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.parts import matrices
from course_lib.models.pretrained import tiny
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format

SYMBOLS = 300_000 if QUICK else 1_500_000
NEAR = 0.01  # a stream may be longer by its table and its places to start, by this share


def huffman_table() -> None:
    """1.5 million Gaussian codes of 16 levels: our stream and dahuffman's."""
    from dahuffman import HuffmanCodec

    numbers = torch.randn(SYMBOLS, generator=torch.Generator().manual_seed(0))
    codes = (numbers / 0.33).round().clamp(-8, 7).add(8).to(torch.uint8)
    listed = codes.tolist()
    codec = HuffmanCodec.from_frequencies(dict(enumerate(torch.bincount(codes).tolist())))
    stream, theirs = encode_bits(codes), codec.encode(listed)
    assert decode_bits(stream).equal(codes.int()) and codec.decode(theirs) == listed
    bits = [8 * len(part) / SYMBOLS for part in (stream, theirs)]
    entropy = float(code_entropy(codes, 16))
    sides = {
        "course_lib": lambda: decode_bits(encode_bits(codes)),
        "dahuffman": lambda: codec.decode(codec.encode(listed)),
    }
    title = f"write and read {SYMBOLS:,} codes, entropy {entropy:.4f} bits"
    told = {"quality": bits, "unit": "bits a code", "more": False, "equal": NEAR}
    report(title, cpu_seconds(sides, 5), 0.06, method="Huffman's code", **told)


Schemes = dict[str, AnyScheme]


def schemes_at(bits: int, tensors: Mapping[str, Tensor]) -> dict[str, Schemes]:
    """Forms of a file that take about so many bits a weight, each for all tensors."""
    pairs = {2: (4, 1), 3: (6, 1), 4: (8, 1), 8: (8, 2)}[bits]
    fours = {2: (8, 1), 3: (6, 2), 4: (8, 2), 8: (8, 4)}[bits]
    alike = {
        "even levels, fixed length, tensor": Scheme(Format(bits), "tensor", mse_range),
        "even levels, fixed length, row": Scheme(Format(bits), "channel", mse_range),
        "even levels, fixed length, 64": Scheme(Format(bits), 64, mse_range),
        "vectors of 2": Vectors(2, *pairs),
        "vectors of 4": Vectors(4, *fours),
        "even levels, Huffman, one step": EvenCoded(step_for(list(tensors.values()), bits)),
    }
    each = {name: EvenCoded(step_for([tensor], bits)) for name, tensor in tensors.items()}
    return {name: dict.fromkeys(tensors, scheme) for name, scheme in alike.items()} | {
        "even levels, Huffman, a step for each": each
    }


def entropy_of_density(x: Tensor) -> float:
    """h of a sample in bits, by a fine histogram, with Miller and Madow's correction."""
    width = float(x.std()) / 50
    cells = (x / width).round().long()
    counts = torch.bincount(cells - cells.min())
    bias = (int((counts > 0).sum()) - 1) / (2 * len(x) * math.log(2))
    return float(code_entropy(cells - cells.min(), len(counts))) + bias + math.log2(width)


def bounds(tensors: Mapping[str, Tensor], bits: float) -> tuple[float, float]:
    """Shannon's lower bound for the tensors' own distributions, as decibels of all together.

    With so many bits for each tensor's numbers, and with so many on average, where every number has
    the same error.
    """
    flat = [tensor.flatten().double() for tensor in tensors.values()]
    signal, numbers = sum(float(x.square().sum()) for x in flat), sum(map(len, flat))
    entropies = [entropy_of_density(x) for x in flat]
    powers = [2 ** (2 * h - 2 * bits) / (2 * math.pi * math.e) for h in entropies]
    each = sum(power * len(x) for power, x in zip(powers, flat, strict=True))
    mean = sum(h * len(x) for h, x in zip(entropies, flat, strict=True)) / numbers
    common = numbers * 2 ** (2 * mean - 2 * bits) / (2 * math.pi * math.e)
    return 10 * math.log10(signal / each), 10 * math.log10(signal / common)


def coded(tensors: Mapping[str, Tensor], schemes: Schemes) -> tuple[float, float]:
    """Decibels of all tensors together, and bits a weight, safetensors' header left out."""
    packed = pack_tensors(tensors, schemes)
    back = unpack_tensors(packed, tensors)
    signal = sum(float(x.double().square().sum()) for x in tensors.values())
    error = sum(float((back[k].double() - x.double()).square().sum()) for k, x in tensors.items())
    count = sum(part.nbytes for part in packed.values())
    numbers = sum(x.numel() for x in tensors.values())
    return 10 * math.log10(signal / error), 8 * count / numbers


def limits_table() -> None:
    """Decibels on a million Gaussian numbers and on TinyLM's matrices."""
    gaussian = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    weights = {name: weight.detach() for name, weight in matrices(tiny()[0]).items()}
    for title, tensors in {"Gaussian": {"x": gaussian}, "TinyLM": weights}.items():
        for bits in (2, 3, 4, 8):
            print(f"{title}, {bits} bits")
            for name, schemes in schemes_at(bits, tensors).items():
                decibels, taken = coded(tensors, schemes)
                print(f"    {name:40} {decibels:6.2f} dB  {taken:.3f} bits", flush=True)
            gauss = 20 * bits * math.log10(2)
            each, common = bounds(tensors, bits)
            print(
                f"    Shannon: {gauss:.2f} dB if all are Gaussian of one power; as they are, "
                f"{each:.2f} with equal bits, {common:.2f} with equal errors"
            )


def tinylm_table() -> None:
    """Bits per byte of TinyLM whose matrices take about 2, 3, 4 bits, and the file's size."""
    model, tokenizer = tiny()
    print(f"dense {tiny_quality(model, tokenizer).bits_per_byte:.3f}", flush=True)
    weights = {name: weight.detach() for name, weight in matrices(model).items()}
    for bits in (2, 3, 4):
        for name, schemes in schemes_at(bits, weights).items():
            packed = pack_model(model, schemes)
            loss = tiny_quality(unpack_model(packed, model), tokenizer).bits_per_byte
            print(f"{bits} bits  {name:40} {loss:.3f}  {size(packed).bytes:,} bytes", flush=True)


def accuracy(model: nn.Module, data: Digits) -> float:
    """Percent of the test images."""
    with torch.no_grad():
        return 100 * (model(data.test_images).argmax(1) == data.test_labels).double().mean().item()


def digits_seed(data: Digits, recipe: Recipe, seed: int) -> tuple[float, float, int, int]:
    """A network before and after Deep Compression: accuracy in percent, twice, and bytes, twice."""
    torch.manual_seed(seed)
    dense = DigitsMLP()
    train_digits(dense, data, seed=seed)
    packed = deep_compression(dense, data, recipe, seed)
    before, after = (accuracy(m, data) for m in (dense, unpack_model(packed, dense)))
    return before, after, size(dense.state_dict()).bytes, size(packed).bytes


def digits_table(seeds: int = 5) -> None:
    """Each seed's accuracy, points lost, bytes and seconds; then of a recipe twice as sparse."""
    data = digits()
    for recipe in (Recipe(), replace(Recipe(), density=Recipe().density / 2)):
        lost, ratios = [], []
        for seed in range(seeds):
            start = time.process_time()
            before, after, full, small = digits_seed(data, recipe, seed)
            seconds = time.process_time() - start
            lost.append(after - before)
            ratios.append(full / small)
            print(
                f"seed {seed}: {before:.2f} %, {lost[-1]:+.2f} points, {small:,} of {full:,} "
                f"bytes, {ratios[-1]:.1f} times smaller, {seconds:.1f} s",
                flush=True,
            )
        print(
            f"{recipe}\n    mean {statistics.mean(lost):+.2f} points (standard deviation "
            f"{statistics.stdev(lost):.2f}), {statistics.mean(ratios):.1f} times smaller"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {"huffman": huffman_table, "limits": limits_table}
    tables |= {"tinylm": tinylm_table, "digits": digits_table}
    run_tables(tables, ("huffman",))
