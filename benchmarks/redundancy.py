"""Duplicates: this library beside datasketch, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.redundancy

20,000 documents: 17,000 runs of 46 words of the King James Bible, and 3,000 copies of some of them
in which up to 5 % of the words are replaced. The truth is all pairs whose 3-shingle sets have a
Jaccard similarity of at least 0.7, found exactly. Times are CPU seconds from text to pairs, the
word splitter is the same for all, the sides take turns and the figure is the median. rensa takes
part where it is installed.

    OMP_NUM_THREADS=1 python -m benchmarks.redundancy layers

prints what chapter 01 stores about SmolLM2: the influence of its 30 layers, and its loss in nats a
token with some of them removed, the least influential ones or random ones. Both on the first 512
tokens that the Wikipedia sample foretells. It takes a few minutes.
"""

import sys
import zlib
from collections.abc import Callable
from hashlib import blake2b
from importlib.util import find_spec

import numpy as np
import torch
from datasketch import MinHash, MinHashLSH

from benchmarks.measuring import QUICK, cpu_seconds, report
from course_lib.data.text import bible_chapters
from course_lib.measure.quality import token_losses
from course_lib.measure.yardstick import wikipedia_sample
from course_lib.models.layers import layer_influence, without_layers
from course_lib.models.pretrained import smollm2
from course_lib.redundancy.duplicates import first_copies
from course_lib.redundancy.minhash import near_duplicates
from course_lib.redundancy.removal import lowest
from course_lib.redundancy.shingles import shingle_sets, similar_pairs, words

THRESHOLD, HASHES, BANDS, REPEATS = 0.7, 128, 32, 5
SHARE = 5 if QUICK else 1  # one document of so many


def planted_documents(originals: int = 17_000, copies: int = 3_000, length: int = 46) -> list[str]:
    """Runs of `length` words of the KJV, then copies with up to 5 % of the words replaced."""
    generator = np.random.default_rng(0)
    text = " ".join(bible_chapters("kjv")).split()
    runs = [text[i * length : (i + 1) * length] for i in range(originals)]
    for source in generator.choice(originals, copies, replace=False):
        changed = generator.random(length) < generator.uniform(0, 0.05)
        others = generator.choice(len(text), length)
        pairs = zip(runs[source], others, changed, strict=True)
        runs.append([text[other] if new else word for word, other, new in pairs])
    return [" ".join(run) for run in runs]


def datasketch_pairs(documents: list[str], hash_function: Callable | None, check: bool) -> set:
    """The pairs that datasketch's LSH answers, checked by the signatures' estimate or not."""
    shingles = []
    for document in documents:
        w = words(document)
        shingles.append([" ".join(w[i : i + 3]).encode() for i in range(len(w) - 2)])
    sketches = MinHash.bulk(shingles, num_perm=HASHES, hashfunc=hash_function)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=HASHES)
    pairs = set()
    for i, sketch in enumerate(sketches):
        pairs.update((j, i) for j in index.query(sketch))
        index.insert(i, sketch, check_duplication=False)
    if check:
        return {(i, j) for i, j in pairs if sketches[i].jaccard(sketches[j]) >= THRESHOLD}
    return pairs


def rensa_pairs(documents: list[str]) -> set:
    """The pairs that rensa's index answers, of as many hashes and bands as ours."""
    from rensa import RMinHash, RMinHashLSH

    index, pairs = RMinHashLSH(THRESHOLD, HASHES, BANDS), set()
    for i, document in enumerate(documents):
        w = words(document)
        sketch = RMinHash(HASHES, 0)
        sketch.update([" ".join(w[j : j + 3]) for j in range(len(w) - 2)])
        pairs.update((j, i) for j in index.query(sketch))
        index.insert(i, sketch)
    return pairs


def compare(sides: dict[str, Callable], repeats: int = REPEATS) -> dict[str, tuple]:
    """Name -> (median CPU seconds, result)."""
    results = {}

    def kept(name: str) -> Callable:
        return lambda: results.update({name: sides[name]()})

    seconds = cpu_seconds({name: kept(name) for name in sides}, repeats)
    return {name: (seconds[name], results[name]) for name in sides}


def near_duplicate_table(documents: list[str]) -> None:
    """Print CPU seconds, recall and precision of each side, and the ratio to the fastest peer."""
    truth = {tuple(p) for p in similar_pairs(shingle_sets(documents), THRESHOLD).tolist()}
    rust = {"rensa": lambda: rensa_pairs(documents)} if find_spec("rensa") else {}
    table = compare(
        {
            "course_lib": lambda: {
                tuple(p) for p in near_duplicates(documents, THRESHOLD, HASHES)[0].tolist()
            },
            "course_lib, exact": lambda: {
                tuple(p) for p in similar_pairs(shingle_sets(documents), THRESHOLD).tolist()
            },
            "datasketch": lambda: datasketch_pairs(documents, None, check=False),
            "datasketch, checked": lambda: datasketch_pairs(documents, None, check=True),
            "datasketch, crc32": lambda: datasketch_pairs(documents, zlib.crc32, check=False),
            **rust,
        }
    )
    print(f"{'':22} recall  precision")
    worse = {}
    for name, (_, found) in table.items():
        recall, precision = len(truth & found) / len(truth), len(truth & found) / len(found)
        worse[name] = min(recall, precision)
        print(f"{name:22} {recall:.4f}     {precision:.4f}")
    order = ("course_lib", "datasketch", "datasketch, checked", "datasketch, crc32", *rust)
    seconds = {name: table[name][0] for name in order}
    print(f"course_lib, exact: {table['course_lib, exact'][0]:.2f} s")
    title = f"{len(documents):,} documents, {len(truth):,} pairs with J ≥ {THRESHOLD}"
    told = {"quality": worse, "unit": "recall or precision, the worse"}
    report(title, seconds, 0.45, method="near duplicates, MinHash", **told)


def exact_table(documents: list[str]) -> None:
    """Print CPU seconds of exact deduplication and of hashing the bytes with BLAKE2b."""
    table = compare(
        {
            "first_copies": lambda: first_copies(documents),
            "blake2b": lambda: {blake2b(d.encode(), digest_size=16).digest() for d in documents},
        }
    )
    found = {name: len(set(result)) for name, (_, result) in table.items()}
    title = f"exact duplicates of {len(documents):,} documents"
    told = {"quality": found, "unit": "different documents", "more": False}
    seconds = {name: seconds for name, (seconds, _) in table.items()}
    report(title, seconds, 1.0, method="exact duplicates", **told)


def layers_table() -> None:
    """Print SmolLM2's influence layer by layer, and its loss with layers removed."""
    model, tokenizer = smollm2()
    tokens = torch.tensor(tokenizer.encode(wikipedia_sample()).ids[:513])
    influence = layer_influence(model, tokens[None, :-1])
    print("influence", " ".join(f"{value:.3f}" for value in influence.tolist()))
    seeded = [
        torch.rand(len(influence), generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    ]
    print("removed   least influential   random (seeds 0, 1)")
    for removed in (0, 1, 2, 3, 4, 6, 8):
        share = removed / len(influence)
        smaller = [without_layers(model, lowest(scores, share)) for scores in (influence, *seeded)]
        losses = [float(token_losses(one, tokens, length=512).mean()) for one in smaller]
        print(f"{removed:>7}" + "".join(f"{loss:>12.3f}" for loss in losses), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["layers"]:
        layers_table()
    else:
        collection = planted_documents(17_000 // SHARE, 3_000 // SHARE)
        near_duplicate_table(collection)
        exact_table(collection)
