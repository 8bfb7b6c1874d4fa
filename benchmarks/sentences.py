"""A network that turns sentences into vectors, shrunk by the library's functions: what finds less?

    OMP_NUM_THREADS=1 python -m benchmarks.sentences bits           120 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.sentences others         100 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.sentences kinds          80 CPU seconds

all-MiniLM-L6-v2. Quality is retrieval: the first half of a Wikipedia paragraph looks for its second
half among those of 100 paragraphs; the share that finds it first, in percent, with its standard
error, and how far the 100² similarities correlate with float32's. The ways are used on the 36
matrices of the encoder; the embedding, half of all numbers, has 8 bits and a scale for each token
in every file but the first.
"""

import sys
import time

import torch
from torch import Tensor

from benchmarks.other_models import BITS, OTHERS, Stored, Tensors, linear, stored
from benchmarks.structured import processor
from course_lib.data.paragraphs import paragraph_halves
from course_lib.formats.linear import Scheme
from course_lib.measure.retrieval import agreement, top_one
from course_lib.models.minilm import embed_sentences, minilm
from course_lib.models.parts import linear_weights
from course_lib.quantization.linear import Format

PARAGRAPHS = 100
EMBEDDING = "tokens.weight"
EIGHT = {EMBEDDING: Scheme(Format(8), "channel")}


class Retrieval:
    """MiniLM, and how alike it finds the halves: of the float32 model once, then of others."""

    def __init__(self, count: int = PARAGRAPHS):
        self.model, self.tokenizer = minilm()
        self.firsts, self.seconds = paragraph_halves(count)
        self.tensors = {name: t.clone() for name, t in self.model.state_dict().items()}
        self.names = list(linear_weights(self.model))
        self.reference = self.similarities(self.tensors)

    def similarities(self, tensors: Tensors) -> Tensor:
        self.model.load_state_dict(tensors)
        texts = self.firsts + self.seconds
        firsts, seconds = embed_sentences(self.model, self.tokenizer, texts).split(len(self.firsts))
        return firsts @ seconds.T  # (N, D) (D, N) -> (N, N)

    def quality(self, tensors: Tensors) -> str:
        found = self.similarities(tensors)
        share = top_one(found)
        return (
            f"top-1 {100 * share.value:5.1f} ± {100 * share.error:3.1f}   "
            f"correlation {agreement(found, self.reference):.4f}"
        )


def show(name: str, file: Stored, quality: str) -> None:
    print(f"    {name:34} {file.bytes:10,} bytes   {quality}", flush=True)


def ways_table(ways: dict) -> None:
    """Every matrix of the encoder by one way."""
    find = Retrieval()
    sides = {
        "float16": stored(find.tensors, {}),
        "float16, embedding 8 bits": stored(find.tensors, EIGHT),
    }
    for name, file in sides.items():
        show(name, file, find.quality(file.tensors))
    for name, way in ways.items():
        file = way(find.tensors, find.names, EIGHT)
        show(name, file, find.quality(file.tensors))


def kinds_table() -> None:
    """One kind of matrix at a time at 4 bits, a scale for each output, the others in float16."""
    find = Retrieval()
    kinds = {
        "query, key": ("query", "key"),
        "value, output": ("value", "output"),
        "MLP, up": ("up",),
        "MLP, down": ("down",),
    }
    groups = {
        kind: [name for name in find.names if name.split(".")[-2] in words]
        for kind, words in kinds.items()
    }
    for kind, names in {**groups, "embedding": [EMBEDDING]}.items():
        numbers = sum(find.tensors[name].numel() for name in names)
        for granularity in ("channel", "tensor"):
            file = linear(4, granularity)(find.tensors, names, {})
            show(f"{kind}, 4 bits, {granularity}", file, find.quality(file.tensors))
        print(f"      {len(names)} matrices, {numbers:,} numbers")


TABLES = {
    "bits": lambda: ways_table(BITS),
    "others": lambda: ways_table(OTHERS),
    "kinds": kinds_table,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) != 2 or sys.argv[1] not in TABLES:
        sys.exit(f"python -m benchmarks.sentences {' | '.join(TABLES)}")
    start = time.process_time()
    print(f"all-MiniLM-L6-v2, retrieval among {PARAGRAPHS}; {processor()}")
    TABLES[sys.argv[1]]()
    print(f"# {time.process_time() - start:.0f} CPU seconds")
