"""What chapter 10 stores: SmolLM2 writing, long contexts, small caches, compiling, other engines.

    OMP_NUM_THREADS=1 python -m benchmarks.decoding smollm2     3 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding contexts    1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.decoding passes      1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.decoding stripes     5 CPU seconds
    OMP_NUM_THREADS=1 python -m benchmarks.decoding caches      6 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding sinks       6 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding look_up     2 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding compiled    2 CPU minutes
    OMP_NUM_THREADS=1 python -m benchmarks.decoding engines     1 CPU minute
    OMP_NUM_THREADS=1 python -m benchmarks.decoding llama_cpp   10 CPU seconds

Times are CPU seconds of one thread; the sides take turns, and the figure is the median. Ratios hold
elsewhere, absolute times do not.
"""

import copy
import os
import platform
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pprint import pprint
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.measuring import cpu_seconds
from course_lib.acceleration.cache import (
    PreallocatedCache,
    SlidingCache,
    ThroughCache,
    cache_bytes,
)
from course_lib.acceleration.drafts import LookUp
from course_lib.acceleration.export.executorch import (
    KINDS,
    export_executorch,
    open_executorch,
    run_executorch,
)
from course_lib.acceleration.export.llama_cpp import LlamaCpp
from course_lib.acceleration.packed_model import (
    fast_model,
    fast_schemes,
    packed_bytes,
    packed_model,
)
from course_lib.acceleration.quantized_cache import QuantizedCache
from course_lib.acceleration.speculative import speculative_generate
from course_lib.data.text import wikipedia_articles
from course_lib.formats.gguf_model import q4_1_range, write_gguf
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import smollm2_quality
from course_lib.models.llama import Llama, generate
from course_lib.models.pretrained import smollm2, tiny

STEP = 32  # tokens that are read at once where a cache is measured
EIGHT, FOUR = Scheme(Format(8, symmetric=True), "channel"), Scheme(Format(4), 64)
GGUF_SCHEMES = {  # kind of block -> how it is rounded
    "float32": None,
    "Q8_0": Scheme(Format(8, symmetric=True), 32),
    "Q4_1": Scheme(Format(4), 32, q4_1_range),
    "Q4_0": Scheme(Format(4, symmetric=True), 32),
}
PROMPTS = {
    "copy": "The committee of the northern harbour met on Tuesday. The committee of the northern "
    "harbour decided on Wednesday to close the eastern gate. The eastern gate of the northern "
    "harbour was closed on Thursday.\n\nThe same text, with every sentence written twice:\n\n",
    "story": "Once upon a time, in a village near the sea, there lived an old clockmaker who",
}


def forms(model: Llama) -> dict[str, Llama]:
    """SmolLM2 as floats, and with its linear layers packed; the embedding in 8 bits there."""
    return {
        "float32": model,
        "bfloat16": copy.deepcopy(model).bfloat16(),
        "8-bit weights": fast_model(model, EIGHT),
        "4-bit weights": fast_model(model, FOUR),
        "4 bits, unpacked at each product": packed_model(
            model, fast_schemes(model, FOUR), native=False
        ),
    }


def smollm2_table(
    batches: tuple[int, ...] = (1, 8, 64), repeats: int = 7
) -> dict[str, tuple[float, ...]]:
    """Megabytes, and ms: one token for each of 1, 8, 64 readers, and to read 256 tokens.

    The readers' prompts of 16 tokens have been read before the clock starts.
    """
    model, tokenizer = smollm2()
    found = forms(model)
    text = next(iter(wikipedia_articles().values()))[:4000]
    tokens = torch.tensor([tokenizer.encode(text).ids])[:, :256]
    table = {n: [packed_bytes(m) / 1e6] for n, m in found.items()}
    for batch in batches:
        times = cpu_seconds({n: _step(m, tokens, batch) for n, m in found.items()}, repeats)
        for name, seconds in times.items():
            table[name].append(1000 * seconds)
    for name, seconds in cpu_seconds(
        {n: partial(m, tokens) for n, m in found.items()}, repeats
    ).items():
        table[name].append(1000 * seconds)
    return {name: tuple(row) for name, row in table.items()}


def _step(model: Llama, tokens: Tensor, batch: int) -> Callable[[], Tensor]:
    """One token more for each reader, from a cache that stays as it is."""
    cache = model.empty_cache()
    model(tokens[:, :16].expand(batch, -1), cache)
    one = tokens[:, 16:17].expand(batch, -1)  # (B, 1)
    return lambda: model(one, [dict(layer) for layer in cache])


def contexts_table(
    contexts: tuple[int, ...] = (64, 512, 1024, 2000), repeats: int = 7
) -> dict[tuple[int, int], tuple[float, float, float]]:
    """(B, S): MB of the cache, and ms for the next token of each of B texts of S tokens.

    Two times: where a token is appended by copying the cache, and where its room was taken before.
    """
    model, _ = smollm2()
    table, G, E = {}, model.config.kv_heads, model.config.head_width
    for batch in (1, 8):
        one = torch.zeros(batch, 1).long()
        for seen in contexts:
            copied, room = model.empty_cache(), [PreallocatedCache(seen + 1) for _ in model.blocks]
            for layer, place in zip(copied, room, strict=True):  # each layer has tensors of its own
                layer |= {n: torch.randn(batch, G, seen, E) for n in ("key", "value")}
                place.append(layer["key"], layer["value"])

            def in_its_room(room=room, one=one, seen=seen) -> None:
                model(one, room)
                for place in room:
                    place.trim(seen)

            sides = {
                "copied": lambda old=copied, one=one: model(one, [dict(layer) for layer in old]),
                "in its room": in_its_room,
            }
            times = cpu_seconds(sides, repeats)
            size = cache_bytes(model.config, seen, batch, bits=32) / 1e6
            table[batch, seen] = size, *(1000 * seconds for seconds in times.values())
    return table


def passes_table(
    counts: tuple[int, ...] = (1, 2, 5, 8), repeats: int = 7
) -> dict[str, tuple[float, ...]]:
    """Form: ms for a pass over 1, 2, 5 and 8 tokens of one text."""
    model, tokenizer = smollm2()
    tokens, table = torch.tensor([tokenizer.encode(PROMPTS["copy"]).ids]), {}
    for name, form in list(forms(model).items())[:4]:
        cache = form.empty_cache()
        form(tokens[:, :16], cache)
        sides = {
            n: lambda n=n, form=form, old=cache: form(
                tokens[:, 16 : 16 + n], [dict(layer) for layer in old]
            )
            for n in counts
        }
        table[name] = tuple(1000 * t for t in cpu_seconds(sides, repeats).values())
    return table


def stripes_table() -> dict[str, tuple[float, float]]:
    """Keys, values: the largest channel's mean size over the median one's, in the median head.

    And the same in the worst head. Of 128 tokens of running text.
    """
    model, tokenizer = smollm2()
    text = next(iter(wikipedia_articles().values()))[:4000]
    cache = model.empty_cache()
    model(torch.tensor([tokenizer.encode(text).ids[:128]]), cache)
    table = {}
    for part in ("key", "value"):
        sizes = torch.stack([layer[part][0].abs().mean(dim=1) for layer in cache])  # (L, G, E)
        stripes = (sizes.amax(dim=2) / sizes.median(dim=2).values).flatten()
        table[part] = stripes.median().item(), stripes.max().item()
    return table


def caches_table(bits: tuple[int, ...] = (8, 4, 3, 2)) -> dict[str, float]:
    """Perplexity of SmolLM2 whose cache has few bits, nothing kept as floats."""
    model, tokenizer = smollm2()
    table = {"float32": smollm2_quality(ThroughCache(model, dict, STEP), tokenizer).perplexity}
    for n in bits:
        for way, by_channel in (("by channel", True), ("naive", False)):

            def make(bits=n, by_channel=by_channel) -> QuantizedCache:
                return QuantizedCache(bits, residual=0, keys_by_channel=by_channel)

            found = smollm2_quality(ThroughCache(model, make, STEP), tokenizer)
            table[f"{n} bits, {way}"] = found.perplexity
            print(n, way, found.perplexity, flush=True)
    return table


def sinks_table(limit: int = 256, length: int = 2048) -> dict[str, float]:
    """Perplexity on two windows of 2,048 tokens with a cache of 256."""
    model, tokenizer = smollm2()
    text = "\n\n".join(wikipedia_articles().values())[:19_712]
    makes = {
        "all tokens": (dict, STEP),
        f"the last {limit}": (lambda: SlidingCache(model.config, limit, 0), 8),
        f"the first 4 and the last {limit - 4}": (
            lambda: SlidingCache(model.config, limit, sinks=4),
            8,
        ),
    }
    table = {}
    for name, (make, step) in makes.items():
        found = quality(ThroughCache(model, make, step), tokenizer, text, length=length)
        table[name] = found.perplexity
        print(name, found.perplexity, flush=True)
    return table


def look_up_table(count: int = 64, repeats: int = 3) -> dict[tuple, tuple[float, ...]]:
    """By numbers and text: α, tokens for each pass, times faster than the plain loop; 4 guesses.

    And how many of the tokens are those of the plain loop, counted to the first that is not.

    In bfloat16 a pass over five tokens rounds otherwise than five passes: texts may part there.
    """
    model, tokenizer = smollm2()
    table = {}
    for kind, some in (("float32", model), ("bfloat16", copy.deepcopy(model).bfloat16())):
        for name, prompt in PROMPTS.items():
            tokens = torch.tensor([tokenizer.encode(prompt).ids])
            sides = {
                "guessed": partial(speculative_generate, some, LookUp(), tokens, count, gamma=4),
                "plain": partial(generate, some, tokens, count),
            }
            found, plain = sides["guessed"](), sides["plain"]()
            same = int((found.tokens == plain).int().cumprod(dim=1).sum()) - tokens.shape[1]
            times = cpu_seconds(sides, repeats)
            gain = times["plain"] / times["guessed"]
            table[kind, name] = found.acceptance, found.tokens_per_round, gain, same
            print(kind, name, table[kind, name], flush=True)
    return table


def compiled_table() -> dict[str, tuple[float, float]]:
    """CPU seconds to compile, from an empty store, and the time beside that without.

    The chain's results go into a tensor that is there, on both sides; so it is the passes that are
    compared, not the memory that the system hands out. TinyLM reads 64 tokens at once.
    """
    model, tokenizer = tiny()
    x, tokens = torch.randn(16_000_000), torch.zeros(1, 64).long()
    out, first, second = (torch.zeros_like(x) for _ in range(3))

    def chain(x: Tensor) -> Tensor:
        return out.copy_((2 * x + 1).relu())

    def three_calls(x: Tensor) -> Tensor:
        torch.mul(x, 2, out=first)
        torch.add(first, 1, out=second)
        return torch.clamp(second, min=0, out=out)

    table = {}
    for name, function, plain, given in (
        ("relu(2x + 1)", chain, three_calls, x),
        ("TinyLM, 64 tokens", model, model, tokens),
    ):
        torch._dynamo.reset()
        with TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            fast, before = torch.compile(function), _all_seconds()
            fast(given)
            took = _all_seconds() - before
            times = cpu_seconds({"fast": partial(fast, given), "plain": partial(plain, given)}, 9)
            table[name] = took, times["fast"] / times["plain"]
    return table


def _all_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, who))


def engines_table(length: int = 128) -> dict[str, tuple[float, float, float, float]]:
    """TinyLM in ExecuTorch: seconds to export, MB, largest error of a logit, time beside ours."""
    model, tokenizer = tiny()
    tokens, table = _some_tokens(tokenizer, length), {}
    wanted = model(tokens[None])[0]
    with TemporaryDirectory() as folder:
        for kind in KINDS:
            path, before = Path(folder, f"{kind}.pte"), _all_seconds()
            export_executorch(model, path, length, kind)
            took, ready = _all_seconds() - before, open_executorch(path)
            error = (run_executorch(ready, tokens) - wanted).abs().max().item()
            sides = {
                "engine": lambda ready=ready: run_executorch(ready, tokens),
                "ours": lambda: model(tokens[None]),
            }
            times = cpu_seconds(sides)
            size = path.stat().st_size / 1e6
            table[kind] = took, size, error, times["engine"] / times["ours"]
    return table


def llama_cpp_table(count: int = 32, repeats: int = 7) -> dict[str, tuple[int, float, float]]:
    """TinyLM in llama.cpp: bytes of the file, times faster than ours, largest error."""
    model, tokenizer = tiny()
    tokens = torch.tensor([tokenizer.encode("And the king said unto").ids])
    table = {}
    with TemporaryDirectory() as folder:
        for kind, scheme in GGUF_SCHEMES.items():
            path, same = Path(folder, f"{kind}.gguf"), copy.deepcopy(model)
            matrices = every_linear(model, scheme) | {"embedding.weight": scheme} if scheme else {}
            codes = {n: nearest_codes(model.get_parameter(n), s) for n, s in matrices.items()}
            for name, chosen in codes.items():
                same.get_parameter(name).copy_(chosen.weight)
            write_gguf(path, model, tokenizer, codes)
            engine = LlamaCpp(path)
            sides = {
                "engine": lambda engine=engine: engine.write(tokens[0], count),
                "ours": lambda: generate(model, tokens, count),
            }
            times = cpu_seconds(sides, repeats)
            found = engine.log_probabilities(tokens[0], model.config.vocabulary)
            error = (found - same(tokens)[0].log_softmax(-1)).abs().max().item()
            table[kind] = path.stat().st_size, times["ours"] / times["engine"], error
    return table


def _some_tokens(tokenizer: Tokenizer, count: int) -> Tensor:
    return torch.tensor(tokenizer.encode("And it came to pass in those days, " * 40).ids[:count])


TABLES = {
    "smollm2": smollm2_table,
    "contexts": contexts_table,
    "passes": passes_table,
    "stripes": stripes_table,
    "caches": caches_table,
    "sinks": sinks_table,
    "look_up": look_up_table,
    "compiled": compiled_table,
    "engines": engines_table,
    "llama_cpp": llama_cpp_table,
}

if __name__ == "__main__":
    if sys.argv[-1] not in TABLES:
        raise SystemExit(f"one of {', '.join(TABLES)}")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(platform.processor() or platform.machine(), torch.get_num_threads(), "thread")
    pprint(TABLES[sys.argv[-1]](), sort_dicts=False)
