"""A network that reads lines of text, shrunk by the library's functions: which bytes cost letters?

    OMP_NUM_THREADS=1 python -m benchmarks.vision bits            130 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.vision others          110 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.vision kinds           95 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.vision layers          80 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.vision characters      60 CPU seconds

PP-OCRv6's small recognizer runs by onnxruntime with the file's weights written into its graph.
Quality is the character error rate in percent, mean and standard deviation over 3 seeds of rendered
lines: 20 clean lines a seed, and 40 that are spoiled (d = 0.9). All rows read the same lines.
"""

import statistics
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.other_models import BITS, OTHERS, Stored, Tensors, linear, stored
from benchmarks.structured import processor
from course_lib.data.rendered_text import Lines, rendered_lines
from course_lib.formats.linear import Scheme
from course_lib.measure.edits import character_error_rate
from course_lib.models.line_reader import LineReader, line_reader, read_lines, trim_characters
from course_lib.models.onnx_weights import float_tensors, open_graph, weight_kinds, with_tensors
from course_lib.quantization.linear import Format

CLEAN, SPOILED = 20, 40  # lines a seed
AMOUNT = 0.9
SEEDS = range(3)
ASCII = "".join(map(chr, range(32, 127)))


def lines() -> dict[str, list[Lines]]:
    return {
        "clean": [rendered_lines(CLEAN, seed) for seed in SEEDS],
        "spoiled": [rendered_lines(SPOILED, 100 + seed, AMOUNT) for seed in SEEDS],
    }


def error_rates(
    reader: LineReader, tensors: Tensors, texts: dict[str, list[Lines]], characters: Sequence[str]
) -> str:
    """Percent of letters that are wrong, mean ± deviation over seeds, of each set of lines."""
    session = open_graph(with_tensors(reader.graph, tensors))
    found = []
    for name, sets in texts.items():
        rates = [
            100 * character_error_rate(read_lines(session, some.images, characters), some.texts)
            for some in sets
        ]
        found.append(f"{name} {statistics.mean(rates):6.2f} ± {statistics.stdev(rates):4.2f}")
    return "   ".join(found)


def show(name: str, file: Stored, quality: str) -> None:
    print(f"    {name:34} {file.bytes:9,} bytes   {quality}", flush=True)


def ways_table(ways: dict) -> None:
    """Every weight of the network by one way."""
    reader = line_reader()
    tensors, names, texts = float_tensors(reader.graph), list(weight_kinds(reader.graph)), lines()
    sides = {"float16": lambda tensors, names, beside: stored(tensors, {}), **ways}
    for name, way in sides.items():
        file = way(tensors, names, {})
        show(name, file, error_rates(reader, file.tensors, texts, reader.characters))


def groups_of_layers(reader: LineReader) -> dict[str, list[str]]:
    """Kind -> names; the head apart from the other products, which are the attention blocks'."""
    kinds = weight_kinds(reader.graph)
    *_, head = kinds
    groups: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        kind = "head" if name == head else {"product": "attention and MLP"}.get(kind, kind)
        groups.setdefault(kind, []).append(name)
    return groups


def kinds_table() -> None:
    """One kind of layer at a time at 4 bits, the others in float16."""
    reader = line_reader()
    tensors, texts = float_tensors(reader.graph), lines()
    for kind, names in groups_of_layers(reader).items():
        numbers = sum(tensors[name].numel() for name in names)
        print(f"  {kind}: {len(names)} weights, {numbers:,} numbers")
        for granularity in ("channel", "tensor"):
            file = linear(4, granularity)(tensors, names, {})
            rates = error_rates(reader, file.tensors, texts, reader.characters)
            show(f"{kind}, 4 bits, {granularity}", file, rates)


def layers_table() -> None:
    """One pointwise layer at a time at 4 bits, a scale for each output; errors on a few lines.

    Then all of the network at 4 bits but the layers that hurt most, which have 8.
    """
    reader, some = line_reader(), rendered_lines(16, 100, AMOUNT)
    tensors, names = float_tensors(reader.graph), list(weight_kinds(reader.graph))
    eight, four = (dict.fromkeys(names, Scheme(Format(bits), "channel")) for bits in (8, 4))
    harm = {}
    for name in groups_of_layers(reader)["pointwise"]:
        file = stored(tensors, {name: four[name]})
        session = open_graph(with_tensors(reader.graph, file.tensors))
        read = read_lines(session, some.images, reader.characters)
        harm[name] = 100 * character_error_rate(read, some.texts)
        print(f"    {name:16} {tuple(tensors[name].shape)!s:18} {harm[name]:6.2f}", flush=True)
    worst, texts = sorted(harm, key=harm.get, reverse=True), lines()
    for count in (4, 8, 16):
        schemes = {**four, **{name: eight[name] for name in worst[:count]}}
        file = stored(tensors, schemes)
        rates = error_rates(reader, file.tensors, texts, reader.characters)
        show(f"4 bits, the {count} worst 8", file, rates)


def characters_table() -> None:
    """Characters that English needs, and no others: alone, then with few bits."""
    reader = line_reader()
    tensors, names, texts = float_tensors(reader.graph), list(weight_kinds(reader.graph)), lines()
    trimmed, characters = trim_characters(tensors, reader.characters, ASCII)
    eight, six, four = (dict.fromkeys(names, Scheme(Format(bits), "channel")) for bits in (8, 6, 4))
    of_kind = groups_of_layers(reader)
    print(f"  {len(reader.characters)} characters, {len(characters)} kept")
    sides = {
        "all, float16": (tensors, reader.characters, {}),
        "ASCII, float16": (trimmed, characters, {}),
        "ASCII, 8 bits, channel": (trimmed, characters, eight),
        "ASCII, 4 bits, channel": (trimmed, characters, four),
    }
    for kind, bits, more in (
        ("depthwise", 8, eight),
        ("pointwise", 8, eight),
        ("pointwise", 6, six),
    ):
        schemes = {**four, **{name: more[name] for name in of_kind[kind]}}
        sides[f"ASCII, 4 bits, {kind} {bits}"] = (trimmed, characters, schemes)
    for name, (those, listed, schemes) in sides.items():
        file = stored(those, schemes)
        show(name, file, error_rates(reader, file.tensors, texts, listed))


TABLES = {
    "bits": lambda: ways_table(BITS),
    "others": lambda: ways_table(OTHERS),
    "kinds": kinds_table,
    "layers": layers_table,
    "characters": characters_table,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) != 2 or sys.argv[1] not in TABLES:
        sys.exit(f"python -m benchmarks.vision {' | '.join(TABLES)}")
    start = time.process_time()
    print(f"PP-OCRv6 recognizer, percent of letters wrong; {processor()}")
    TABLES[sys.argv[1]]()
    print(f"# {time.process_time() - start:.0f} CPU seconds")
