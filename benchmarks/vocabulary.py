"""What chapter 09 stores on vocabularies: what trimming saves, what it costs, on which text.

    OMP_NUM_THREADS=1 python -m benchmarks.vocabulary TABLE tiny
    OMP_NUM_THREADS=1 python -m benchmarks.vocabulary TABLE smollm2

    TABLE     CPU seconds, TinyLM    SmolLM2
    kinds     30                     400
    curve     25                     350
    growth    7                      100
    words     45                     55
    rank      20                     400
    spectra   15                     80
    files     7                      not known
    speed     5; too noisy to use    not known

Each table is printed as Python. Tokens are chosen on calibration text, bits per byte are measured
on other text; only the row "itself" chooses on the text that is measured. Where a token is gone,
its text is spelled with others, and two things happen that are told apart:

    full       the tokenizer and the model as they were
    spelled    the new tokens, the softmax still over the whole vocabulary
    trimmed    the new tokens, the softmax over those that are left: what the trimmed model does

From full to spelled the loss rises; from spelled to trimmed it falls, by what the missing tokens
would have been given. A window holds as many tokens as before, so fewer words.

What was found stands at the end of the file. Of SmolLM2, `words` and 11 of the 20 rows of `kinds`
have been run; its other times are estimates, 20 s for each pass over a text.
"""

import copy
import json
import math
import platform
import sys
import sysconfig
import time
from collections import Counter
from functools import cache, partial
from itertools import chain
from pathlib import Path
from pprint import pprint
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from benchmarks.measuring import cpu_seconds
from course_lib.data.text import bible_chapters, split, wikipedia_articles
from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear
from course_lib.low_rank.vocabulary import (
    new_ids,
    token_counts,
    trim_tokenizer,
    trim_vocabulary,
    used_tokens,
)
from course_lib.measure.quality import windows_at_once
from course_lib.measure.yardstick import (
    EVERY,
    FIRST,
    held_out_sample,
    smollm2_calibration,
    tiny_calibration,
    wikipedia_sample,
)
from course_lib.models import pretrained
from course_lib.models.llama import Llama
from course_lib.models.llama_file import save_llama
from course_lib.models.moments import Moments
from course_lib.models.parts import embed

SAMPLE_MODULES = ("bisect", "heapq", "textwrap")  # of Python's standard library
LEASTS = {  # uses
    "tiny": (0, 64, 96, 128, 192, 256, 512, 10**9),
    "smollm2": (0, 1, 2, 4, 8, 16, 64, 256),
}
FAR = {"tiny": (128, 256), "smollm2": (1, 8, 64)}  # where other kinds and a control are measured
EIGHT, FOUR = Scheme(Format(8, symmetric=True), 32), Scheme(Format(4), 32, q4_1_range)


class Subject(NamedTuple):
    """A model, and how its texts are cut and calibrated."""

    model: Llama
    tokenizer: Tokenizer
    length: int
    home: str  # the kind of text that it is measured on everywhere else


@cache
def subject(name: str) -> Subject:
    if name == "tiny":
        return Subject(*pretrained.tiny(), 256, "KJV")
    return Subject(*pretrained.smollm2(), 512, "Wikipedia")


@cache
def kinds() -> dict[str, tuple[list[str], str]]:
    """Kind of text -> texts to calibrate on, and another to measure on."""
    american = split(bible_chapters("asv"))
    folder = Path(sysconfig.get_path("stdlib"))
    code = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.py"))}
    samples = [code.pop(name) for name in SAMPLE_MODULES]
    return {
        "KJV": ([split(bible_chapters("kjv"))[0]], held_out_sample()),
        "ASV": ([american[0]], "\n\n".join(american[1].split("\n\n")[FIRST::EVERY])),
        "Wikipedia": (list(wikipedia_articles().values())[1:], wikipedia_sample()),
        "Python": (list(code.values()), "".join(text[:4096] for text in samples)),
    }


class Cost(NamedTuple):
    """Of a text: how many tokens it takes, and its bits per byte in both ways."""

    tokens: int
    spelled: float
    trimmed: float


def cost(one: Subject, keep: list[int], text: str, head: Tensor | None = None) -> Cost:
    """What a text costs with the tokens kept; the model reads it, whole, by its old numbers."""
    ids = new_ids(one.tokenizer, keep)
    kept = (ids >= 0).nonzero().flatten()  # (m,)
    tokens = kept[trim_tokenizer(one.tokenizer, keep).encode(text).ids]  # new -> old numbers
    head = one.model.embedding.weight if head is None else head
    nats = less = 0.0
    states = last_states(one.model, tuple(tokens.tolist()), one.length)
    for x, targets in zip(states.split(512), tokens[1:].split(512), strict=True):
        logits = x @ head.T  # (N, D) (D, M) -> (N, M)
        nats += F.cross_entropy(logits, targets, reduction="sum").item()
        less += (logits.logsumexp(-1) - logits[:, kept].logsumexp(-1)).double().sum().item()
    read = len(text.encode()) - len(one.tokenizer.id_to_token(int(tokens[0])))
    bits = math.log(2) * read
    return Cost(len(tokens), nats / bits, (nats - less) / bits)


@cache
def last_states(model: Llama, tokens: tuple[int, ...], length: int) -> Tensor:
    """What the head is given for each token but the last, read in windows: (N − 1, D)."""
    states = []
    for inputs, _ in windows_at_once(torch.tensor(tokens), length, 2048):
        x, cos, sin = embed(model, inputs)
        for block in model.blocks:
            x = block(x, cos, sin)
        states.append(model.norm(x).flatten(0, 1))  # (B, T, D) -> (B · T, D)
    return torch.cat(states)[: len(tokens) - 1]


def count_kept(subject: Subject, keep: list[int]) -> int:
    return int((new_ids(subject.tokenizer, keep) >= 0).sum())


def kinds_table(name: str) -> dict[tuple[str, str], tuple[float, ...]]:
    """(tokens from, measured on): kept, tokens, bits per byte spelled, and trimmed."""
    one = subject(name)
    everything = list(range(one.model.config.vocabulary))
    chosen = {"everything": everything}
    for kind in ("KJV", "Wikipedia", "Python"):
        chosen[kind] = used_tokens(one.tokenizer, kinds()[kind][0])
    table = {}
    for kind, (_, text) in kinds().items():
        for source, keep in {**chosen, "itself": used_tokens(one.tokenizer, [text])}.items():
            table[source, kind] = count_kept(one, keep), *cost(one, keep, text)
            show(table, (source, kind))
    return table


def curve_table(name: str) -> dict[object, tuple]:
    """At least k uses: kept, MB in float16 and in few bits, and tokens and bits per byte by kind.

    "first m": a control, as many tokens, the earliest of the tokenizer's own list.
    """
    one, table = subject(name), {}
    counts = token_counts(one.tokenizer, kinds()[one.home][0])
    for least in LEASTS[name]:
        keep = (counts >= least).nonzero().flatten().tolist()
        m = count_kept(one, keep)
        ways = {least: (keep, (one.home,))}
        if least in FAR[name]:
            ways[least] = keep, ("KJV", "Wikipedia", "Python")
            ways[f"first {m}"] = list(range(m)), (one.home,)
        for way, (chosen, measured) in ways.items():
            costs = {kind: cost(one, chosen, kinds()[kind][1]) for kind in measured}
            sizes = megabytes(one.model, count_kept(one, chosen))
            found = {kind: (c.tokens, round(c.trimmed, 4)) for kind, c in costs.items()}
            table[way] = m, *sizes, found
            show(table, way)
    return table


def megabytes(model: Llama, kept: int) -> tuple[float, float]:
    """Of all weights in float16; and of the embedding in 8 bits, the linear layers in 4 (Q4_1)."""
    D = model.config.width
    embedding = kept * D
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2) - (
        model.config.vocabulary * D
    )
    norms = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    halves = 2 * (embedding + matrices + norms)
    few = embedding * 34 / 32 + matrices * 20 / 32 + 4 * norms
    return halves / 1e6, few / 1e6


def words_table(name: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(tokens from, text): how many distinct words take more tokens, as many, and fewer."""
    one, table = subject(name), {}
    for source in kinds():
        after = trim_tokenizer(one.tokenizer, used_tokens(one.tokenizer, kinds()[source][0]))
        for kind, (texts, _) in kinds().items():
            words = sorted(set(chain(*(pieces(one.tokenizer, text) for text in texts))))
            both = ([len(e) for e in t.encode_batch(words)] for t in (one.tokenizer, after))
            signs = Counter((new > old) - (new < old) for old, new in zip(*both, strict=True))
            table[source, kind] = signs[1], signs[0], signs[-1]
            show(table, (source, kind))
    return table


def pieces(tokenizer: Tokenizer, text: str) -> set[str]:
    """The words that a text is cut into before BPE begins, with their spaces."""
    return {text[a:b] for _, (a, b) in tokenizer.pre_tokenizer.pre_tokenize_str(text)}


def growth_table(name: str) -> dict[int, tuple[float, ...]]:
    """Thousand characters to calibrate on: kept, tokens, bits per byte spelled, and trimmed."""
    one = subject(name)
    texts, sample = kinds()[one.home]
    whole, table = "\n\n".join(texts), {}
    for thousands in (20, 100, 500, len(whole) // 1000):
        keep = used_tokens(one.tokenizer, [whole[: 1000 * thousands]])
        table[thousands] = count_kept(one, keep), *cost(one, keep, sample)
        show(table, thousands)
    return table


def files_table(name: str) -> dict[tuple[str, int], tuple[float, float, float]]:
    """(kept by, k): MB of the float16 file, of tokenizer.json, and of a GGUF file of few bits."""
    one, table = subject(name), {}
    counts = token_counts(one.tokenizer, kinds()[one.home][0])
    linear = every_linear(one.model, FOUR)
    codes = {n: nearest_codes(one.model.get_parameter(n), scheme) for n, scheme in linear.items()}
    for least in (0, 1, 8, 64):
        keep = (counts >= least).nonzero().flatten().tolist()
        model, tokenizer = trim_vocabulary(one.model, one.tokenizer, keep)
        rows = {"embedding.weight": nearest_codes(model.embedding.weight, EIGHT)}
        with TemporaryDirectory() as folder:
            place = Path(folder)
            write_gguf(place / "few.gguf", model, tokenizer, codes | rows)
            save_llama(model.half(), place / "half.safetensors")
            text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)
            (place / "tokenizer.json").write_text(text, "utf-8")
            sizes = [
                (place / name).stat().st_size / 1e6
                for name in ("half.safetensors", "tokenizer.json", "few.gguf")
            ]
        table[one.home, least] = *sizes, model.config.vocabulary
        show(table, (one.home, least))
    return table


def speed_table(name: str, repeats: int = 15) -> dict[int, tuple[float, ...]]:
    """k: tokens kept, ms of one step at batch 1 with a cache of 64, and of the head's product."""
    one = subject(name)
    counts = token_counts(one.tokenizer, kinds()[one.home][0])
    sides, kept, h = {}, {}, torch.randn(1, 1, one.model.config.width)
    for least in (0, 1, 8, 64):
        keep = (counts >= least).nonzero().flatten().tolist()
        model = trim_vocabulary(one.model, one.tokenizer, keep)[0]
        model.blocks = one.model.blocks  # the same weights, in the same place
        kept[least] = model.config.vocabulary
        seen, token = model.empty_cache(), torch.zeros(1, 64).long()
        model(token, seen)
        sides[least, "step"] = lambda model=model, seen=seen, token=token: model(
            token[:, :1], [dict(layer) for layer in seen]
        )
        sides[least, "head"] = lambda model=model: F.linear(h, model.embedding.weight)
    times = cpu_seconds(sides, repeats)
    return {
        k: (m, *(round(1000 * times[k, part], 2) for part in ("step", "head")))
        for k, m in kept.items()
    }


@cache
def weighting(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Way -> weights c of the rows (M,), and A (D, D) of the error's columns: ‖√c (E − Ê) A‖²."""
    one = subject(name)
    E = one.model.embedding.weight
    counts = token_counts(one.tokenizer, kinds()[one.home][0]).double()
    tokens = (tiny_calibration if name == "tiny" else smollm2_calibration)(one.tokenizer)
    moments = Moments.empty(E.shape[1], torch.float64)
    for some in tokens.split(4):
        x, cos, sin = embed(one.model, some)
        for block in one.model.blocks:
            x = block(x, cos, sin)
        moments.add(one.model.norm(x))
    G = moments.gram / moments.gram.diagonal().mean()
    unit, ones = torch.eye(len(G), dtype=torch.float64), torch.ones(len(E), dtype=torch.float64)
    return {
        "plain": (ones, unit),
        "by count": (counts, unit),
        "outputs by count": (counts, power(G, 0.5)),
        "both uses by count": (counts, power(unit + G, 0.5)),
    }


def power(G: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(G)
    floor = values[-1] * len(G) * torch.finfo(G.dtype).eps
    return (vectors * values.clamp(min=floor).pow(exponent)) @ vectors.T


def factored(E: Tensor, c: Tensor, A: Tensor, rank: int) -> Tensor:
    """The matrix of this rank that is nearest to E by ‖√c (E − Ê) A‖: E A V Vᵀ A⁻¹."""
    wide = E.double() @ A
    _, vectors = torch.linalg.eigh((wide.T * c) @ wide)
    V = vectors[:, -rank:]  # eigenvalues ascend
    return (wide @ V @ (V.T @ torch.linalg.inv(A))).float()


def reading(model: Llama, lookup: Tensor) -> Llama:
    """The model with another matrix for its tokens; the blocks are the same ones."""
    other = copy.copy(model)
    other._modules = model._modules | {"embedding": nn.Embedding.from_pretrained(lookup)}
    return other


def rank_table(name: str) -> dict[tuple[object, ...], float]:
    """(way, numbers left, of the lookup or the head or both): bits per byte at home."""
    one = subject(name)
    E, text = one.model.embedding.weight, kinds()[one.home][1]
    everything, (M, D) = list(range(len(E))), E.shape

    def bits(lookup: Tensor, head: Tensor) -> float:
        model = one.model if lookup is E else reading(one.model, lookup)
        return round(cost(one._replace(model=model), everything, text, head).trimmed, 4)

    table: dict[tuple[object, ...], float] = {("whole", 1.0, "both"): bits(E, E)}
    for scheme, share in ((EIGHT, 34 / 64), (FOUR, 20 / 64)):  # of the bytes of float16
        rounded = nearest_codes(E, scheme).weight
        table[f"{scheme.format.bits} bits", share, "both"] = bits(rounded, rounded)
    for left in (0.75, 0.5, 0.25):
        for way, (c, A) in weighting(name).items():
            small = factored(E, c, A, rank=int(left * M * D / (M + D)))
            uses = {"both": (small, small)}
            if left == 0.5:
                uses |= {"lookup": (small, E), "head": (E, small)}
            for use, pair in uses.items():
                table[way, left, use] = bits(*pair)
                show(table, (way, left, use))
    return table


def spectra_table(name: str) -> dict[str, tuple[float, ...]]:
    """Way: share of the rank that holds 50, 90 and 99 % of the squares, beside noise's."""
    one = subject(name)
    E, table = one.model.embedding.weight.double(), {}
    noise = torch.randn(E.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ways = weighting(name)
    for way, (matrix, (c, A)) in {
        "noise": (noise, ways["plain"]),
        **{way: (E, weights) for way, weights in ways.items()},
    }.items():
        wide = matrix @ A
        squares = torch.linalg.eigvalsh((wide.T * c) @ wide).flip(0).clamp(min=0)
        shares = (squares.cumsum(0) / squares.sum()).tolist()
        table[way] = tuple(
            round(1 / len(shares) * (1 + sum(s < goal for s in shares)), 3)
            for goal in (0.5, 0.9, 0.99)
        )
    return table


def show(table: dict, key: object) -> None:
    """One row, rounded, on stderr, while the table grows."""
    row = table[key]
    table[key] = (
        round(row, 4)
        if isinstance(row, float)
        else tuple(round(x, 4) if isinstance(x, float) else x for x in row)
    )
    print(key, table[key], f"{time.process_time():.0f} s", file=sys.stderr, flush=True)


TABLES = {
    "kinds": kinds_table,
    "curve": curve_table,
    "words": words_table,
    "growth": growth_table,
    "files": files_table,
    "speed": speed_table,
    "spectra": spectra_table,
    "rank": rank_table,
}

# Found on 27 November 2026, on an x86-64 processor, with one thread.
# (tokens from, measured on): kept, tokens, bits per byte spelled, and trimmed. kinds smollm2:
STORED_KINDS_SMOLLM2 = {
    ("everything", "KJV"): (49152, 3158, 1.045, 1.045),
    ("KJV", "KJV"): (11223, 3160, 1.0457, 1.034),
    ("Wikipedia", "KJV"): (30813, 3278, 1.1637, 1.1471),
    ("Python", "KJV"): (16357, 3811, 1.6366, 1.5607),
    ("itself", "KJV"): (1623, 3158, 1.045, 0.9671),
    ("everything", "ASV"): (49152, 3159, 1.0345, 1.0345),
    ("KJV", "ASV"): (11223, 3175, 1.0553, 1.0435),
    ("Wikipedia", "ASV"): (30813, 3273, 1.1577, 1.14),
    ("Python", "ASV"): (16357, 3829, 1.6243, 1.5507),
    ("itself", "ASV"): (1650, 3159, 1.0345, 0.9585),
    ("everything", "Wikipedia"): (49152, 4098, 0.9474, 0.9474),
}
# kinds tiny, 24 CPU seconds:
STORED_KINDS_TINY = {
    ("everything", "KJV"): (2048, 3658, 1.1731, 1.1731),
    ("KJV", "KJV"): (2048, 3658, 1.1731, 1.1731),
    ("Wikipedia", "KJV"): (1939, 3722, 1.3054, 1.2951),
    ("Python", "KJV"): (1556, 4080, 1.9241, 1.8762),
    ("itself", "KJV"): (1233, 3658, 1.1731, 1.1308),
    ("everything", "ASV"): (2048, 3706, 1.2752, 1.2752),
    ("KJV", "ASV"): (2048, 3706, 1.2752, 1.2752),
    ("Wikipedia", "ASV"): (1939, 3761, 1.3727, 1.3634),
    ("Python", "ASV"): (1556, 4105, 1.9705, 1.9238),
    ("itself", "ASV"): (1230, 3706, 1.2752, 1.2284),
    ("everything", "Wikipedia"): (2048, 8085, 4.2913, 4.2913),
    ("KJV", "Wikipedia"): (2048, 8085, 4.2913, 4.2913),
    ("Wikipedia", "Wikipedia"): (1939, 8086, 4.2939, 4.2874),
    ("Python", "Wikipedia"): (1556, 8154, 4.3445, 4.3083),
    ("itself", "Wikipedia"): (1069, 8085, 4.2913, 4.1878),
    ("everything", "Python"): (2048, 6276, 7.9038, 7.9038),
    ("KJV", "Python"): (2048, 6276, 7.9038, 7.9038),
    ("Wikipedia", "Python"): (1939, 6276, 7.9038, 7.8948),
    ("Python", "Python"): (1556, 6278, 7.9072, 7.8668),
    ("itself", "Python"): (791, 6276, 7.9038, 7.6422),
}
# curve tiny, 24 CPU seconds. At least k uses: kept, MB in float16 and in few bits, then by kind
# tokens and bits per byte:
STORED_CURVE_TINY = {
    0: (2048, 3.9356, 1.4077, {"KJV": (3658, 1.1731)}),
    64: (2048, 3.9356, 1.4077, {"KJV": (3658, 1.1731)}),
    96: (2048, 3.9356, 1.4077, {"KJV": (3658, 1.1731)}),
    128: (
        1760,
        3.825,
        1.349,
        {"KJV": (3761, 1.3287), "Wikipedia": (8265, 4.3828), "Python": (6361, 7.9765)},
    ),
    "first 1760": (1760, 3.825, 1.349, {"KJV": (3754, 1.3288)}),
    192: (1305, 3.6503, 1.2562, {"KJV": (4048, 1.7201)}),
    256: (
        1067,
        3.5589,
        1.2076,
        {"KJV": (4371, 2.1239), "Wikipedia": (9104, 4.8166), "Python": (6795, 8.298)},
    ),
    "first 1067": (1067, 3.5589, 1.2076, {"KJV": (4277, 2.0774)}),
    512: (688, 3.4134, 1.1303, {"KJV": (4990, 2.8618)}),
    10**9: (256, 3.2475, 1.0422, {"KJV": (12743, 10.0116)}),
}
# growth tiny, 7 CPU seconds. Thousand characters: kept, tokens, bits per byte spelled, trimmed:
STORED_GROWTH_TINY = {
    20: (1151, 4524, 2.5276, 2.4353),
    100: (1725, 3865, 1.4917, 1.4679),
    500: (1979, 3702, 1.2369, 1.2332),
    3944: (2048, 3658, 1.1731, 1.1731),
}
# rank tiny, 20 CPU seconds. (way, numbers or bytes left, of which use): bits per byte:
STORED_RANK_TINY = {
    ("whole", 1.0, "both"): 1.1731,
    ("8 bits", 0.53125, "both"): 1.173,
    ("4 bits", 0.3125, "both"): 1.1774,
    ("plain", 0.75, "both"): 1.2819,
    ("by count", 0.75, "both"): 1.2508,
    ("outputs by count", 0.75, "both"): 1.2466,
    ("both uses by count", 0.75, "both"): 1.22,
    ("plain", 0.5, "both"): 1.472,
    ("plain", 0.5, "lookup"): 1.211,
    ("plain", 0.5, "head"): 1.4281,
    ("by count", 0.5, "both"): 1.4204,
    ("by count", 0.5, "lookup"): 1.2087,
    ("by count", 0.5, "head"): 1.3795,
    ("outputs by count", 0.5, "both"): 1.4699,
    ("outputs by count", 0.5, "lookup"): 1.3661,
    ("outputs by count", 0.5, "head"): 1.2781,
    ("both uses by count", 0.5, "both"): 1.3625,
    ("both uses by count", 0.5, "lookup"): 1.228,
    ("both uses by count", 0.5, "head"): 1.2991,
    ("plain", 0.25, "both"): 1.9371,
    ("by count", 0.25, "both"): 1.7762,
    ("outputs by count", 0.25, "both"): 1.8507,
    ("both uses by count", 0.25, "both"): 1.713,
}
# spectra tiny, 15 CPU seconds. Share of the rank that holds 50, 90 and 99 % of the squares:
STORED_SPECTRA_TINY = {
    "noise": (0.375, 0.833, 0.984),
    "plain": (0.005, 0.401, 0.906),
    "by count": (0.073, 0.578, 0.932),
    "outputs by count": (0.005, 0.109, 0.667),
    "both uses by count": (0.01, 0.312, 0.849),
}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TABLES or sys.argv[2] not in ("tiny", "smollm2"):
        raise SystemExit(f"one of {', '.join(TABLES)}, then tiny or smollm2")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(platform.processor() or platform.machine(), torch.get_num_threads(), "thread")
    pprint(partial(TABLES[sys.argv[1]], sys.argv[2])(), sort_dicts=False)
    print(f"# {time.process_time():.0f} CPU seconds")
