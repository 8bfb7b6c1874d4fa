"""What came out of a recipe, measured from its file; and the model card that says it in words.

Times are shares of the dense model's in the same run. The model that a file gives back computes
with float32 numbers: only what was removed for real makes it faster.

Source: Mitchell et al., 2019, "Model Cards for Model Reporting".
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from course_lib.measure.divergence import Estimate, estimate, token_divergences
from course_lib.measure.kinds import KINDS, by_class, frequencies_of, frequency_names, kinds_of
from course_lib.measure.latency import latency
from course_lib.measure.size import size
from course_lib.measure.yardstick import held_out_sample, tiny_quality
from course_lib.models.llama import Llama, generate
from course_lib.pipeline.compressed_file import load_compressed
from course_lib.pipeline.steps import Given

PROMPT, NEW = 32, 32  # tokens: read at once, then made one by one
Classes = dict[str, tuple[Estimate, int]]


@dataclass(frozen=True)
class Report:
    """What a file is worth.

    bytes, dense_bytes: of the file, and of one with the dense model in float16.
    bits_per_byte, dense_bits_per_byte: on the held-out sample.
    kl, flips: against the dense model, as in `divergence`.
    by_kind, by_frequency: share of flips, by what the next token is, and how often training saw it.
    decode, prefill: time over the dense model's, for one token after the other, and for a prompt.
    seed, recipe: how it was made.
    versions: of Python and PyTorch.
    """

    bytes: int
    dense_bytes: int
    bits_per_byte: float
    dense_bits_per_byte: float
    kl: Estimate
    flips: Estimate
    by_kind: Classes
    by_frequency: Classes
    decode: float
    prefill: float
    seed: int
    recipe: list[dict[str, Any]]
    versions: dict[str, str]

    @property
    def share(self) -> float:
        """bytes / dense_bytes."""
        return self.bytes / self.dense_bytes

    @property
    def loss(self) -> float:
        """By how much more bits per byte: 0.03 is three per cent."""
        return self.bits_per_byte / self.dense_bits_per_byte - 1


def float16_bytes(model: Llama) -> int:
    """The bytes of a file with all of the model's numbers in float16.

    >>> from course_lib.models.pretrained import tiny
    >>> round(float16_bytes(tiny()[0]) / 1e6, 2)
    3.94
    """
    return size({name: tensor.half() for name, tensor in model.state_dict().items()}).bytes


@torch.no_grad()
def report(path: Path, given: Given, seed: int = 0, repeats: int = 5) -> Report:
    """Read a file, and measure what it gives back.

    Args:
        path: from `compressed_file.save_compressed`.
        seed: that the recipe was run with.
        repeats: of each timing.

    Raises:
        ValueError: what `load_compressed` refuses.
    """
    found = load_compressed(path)
    model, dense = found.model, given.dense
    tokens = torch.tensor(given.tokenizer.encode(held_out_sample()).ids)
    kl, flipped = token_divergences(model, dense, tokens, dense.config.context)
    flips = flipped.float()
    prompt = tokens[None, :PROMPT]
    window = tokens[None, : dense.config.context]
    decode = latency(
        lambda: generate(model, prompt, NEW), lambda: generate(dense, prompt, NEW), repeats
    )
    prefill = latency(lambda: model(window), lambda: dense(window), repeats)
    return Report(
        found.bytes,
        float16_bytes(dense),
        tiny_quality(model, given.tokenizer).bits_per_byte,
        tiny_quality(dense, given.tokenizer).bits_per_byte,
        estimate(kl),
        estimate(flips),
        by_class(flips, kinds_of(given.tokenizer, tokens[1:]), KINDS),
        by_class(flips, frequencies_of(tokens[1:], given.text), frequency_names()),
        decode.ratio,
        prefill.ratio,
        seed,
        found.recipe,
        {"python": platform.python_version(), "torch": torch.__version__},
    )


def model_card(name: str, found: Report) -> str:
    """The report as a page of Markdown, for those who are to use the model.

    Args:
        name: of the model, one line.
    """
    steps = "\n".join(
        f"{n}. {step.get('do', '?')} "
        + ", ".join(f"{key} {value}" for key, value in step.items() if key != "do")
        for n, step in enumerate(found.recipe, start=1)
    )
    return f"""# {name}

A compressed TinyLM, for teaching: it continues text in the manner of the King James Bible, in
English, up to 256 tokens, and nothing else. It knows nothing that is true.

| | dense, float16 | this file |
|---|---|---|
| bytes | {found.dense_bytes:,} | {found.bytes:,} ({found.share:.1%}) |
| bits per byte, held-out | {found.dense_bits_per_byte:.3f} | {found.bits_per_byte:.3f} ({found.loss:+.1%}) |
| time for a token | 1 | {found.decode:.2f} |
| time for a prompt | 1 | {found.prefill:.2f} |

Against the dense model: KL {found.kl} nats a token; another first choice for {found.flips.mean:.1%}
(± {found.flips.error:.1%}) of the tokens.

## What got worse

{_rows("The next token is", found.by_kind)}

{_rows("Training saw it", found.by_frequency)}

## How it was made

{steps or "Nothing was done to it."}

Seed {found.seed}; {", ".join(f"{k} {v}" for k, v in found.versions.items())}. The text is in the
public domain, in the United Kingdom under Crown rights.
"""  # noqa: E501


def _rows(title: str, classes: Classes) -> str:
    lines = [f"| {title} | tokens | another first choice |", "|---|---|---|"]
    for name, (flips, count) in classes.items():
        lines.append(f"| {name} | {count:,} | {flips.mean:.1%} ± {flips.error:.1%} |")
    return "\n".join(lines)
