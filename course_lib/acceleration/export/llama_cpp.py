"""Run a GGUF file by llama.cpp, through the package xllamacpp.

    engine = LlamaCpp(path)
    engine.write(tokens, 20)             the most likely tokens, and how fast they came
    engine.log_probabilities(tokens)     log p(token | those before), for the whole vocabulary

What llama.cpp computes differs from `Llama` in one thing: a matrix of float16 or of codes is never
made float32 again. Its input is rounded instead, to 8 bits in groups of 32 with a scale each, and
codes are multiplied by codes. (With float16 matrices, sums and inputs are rounded as the processor
has it.) The cache is kept in float32 here; by default it would be in float16.
`formats.gguf_model` writes such files.

Source: "llama.cpp", the project ggml.

Axes: T tokens, V vocabulary.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib.acceleration.export.quiet import quiet


def has_llama_cpp() -> bool:
    """Whether the package xllamacpp is installed.

    >>> has_llama_cpp() in (True, False)
    True
    """
    return find_spec("xllamacpp") is not None


@dataclass(frozen=True)
class Written:
    """What the engine wrote, and what its own clock says: the wall's, so others' work slows it.

    Attributes:
        tokens: the new ones, (count,).
        text: the same as text.
        log_probabilities: of each of them, (count,), float32.
        prefill: tokens read a second, all at once.
        decode: tokens written a second, one by one; the first one is the prefill's.
    """

    tokens: Tensor
    text: str
    log_probabilities: Tensor
    prefill: float
    decode: float


class LlamaCpp:
    """A model in llama.cpp, on the CPU.

    Args:
        path: of a GGUF file.
        context: how many tokens the cache has room for.
        threads: of the processor.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: xllamacpp is not installed (the extra `edge`).
        RuntimeError: llama.cpp cannot read the file.
    """

    def __init__(self, path: Path, context: int = 256, threads: int = 1):
        import xllamacpp

        if not Path(path).is_file():
            raise FileNotFoundError(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context, 1
        params.n_gpu_layers, params.warmup, params.verbosity = 0, False, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = off  # it keeps the cache in float16
        with quiet():
            self._server = xllamacpp.Server(params)

    def write(self, tokens: Tensor, count: int) -> Written:
        """The `count` most likely next tokens, one at a time, after tokens (T,).

        Raises:
            ValueError: tokens is not 1-D or empty; count is below 1; the engine refuses, and says
                why, as where the context is too short.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1; got {count}")
        answer = self._ask(tokens, count, shown=1, reuse=False)
        steps = answer["choices"][0]["logprobs"]["content"]
        return Written(
            torch.tensor([step["id"] for step in steps]),
            answer["choices"][0]["text"],
            torch.tensor([step["logprob"] for step in steps]),
            answer["timings"]["prompt_per_second"],
            answer["timings"]["predicted_per_second"],
        )

    def log_probabilities(self, tokens: Tensor, vocabulary: int) -> Tensor:
        """What the model expects after each token of (T,): (T, V), float32, natural logarithms.

        The engine is asked T times for one token; its cache remembers the text so far.

        Args:
            vocabulary: V.

        Raises:
            ValueError: as `write`.
        """
        rows = torch.full((len(tokens), vocabulary), float("-inf"))
        for place in range(len(tokens)):
            answer = self._ask(tokens[: place + 1], 1, shown=vocabulary, reuse=True)
            (step,) = answer["choices"][0]["logprobs"]["content"]
            for guess in step["top_logprobs"]:
                rows[place, guess["id"]] = guess["logprob"]
        return rows

    def _ask(self, tokens: Tensor, count: int, shown: int, reuse: bool) -> dict[str, Any]:
        if tokens.dim() != 1 or not len(tokens):
            raise ValueError(f"tokens must have shape (T,), T ≥ 1; got {tuple(tokens.shape)}")
        request = {
            "prompt": tokens.tolist(),
            "max_tokens": count,
            "temperature": 0,
            "logprobs": shown,
            "ignore_eos": True,
            "cache_prompt": reuse,
        }
        answer = self._server.handle_completions(request)
        if "choices" not in answer:
            raise ValueError(f"llama.cpp refuses: {answer.get('message', answer)}")
        return answer
