"""Train TinyLM, the small language model that comes with the course.

    python -m course_lib.models.train_tiny

learns from the King James Bible (every 20th chapter held out) and writes the checkpoint and its
tokenizer. It may be stopped at any time: the next call goes on where the last one was saved.

Hidden matrices are trained with Muon (Jordan et al., 2024, "Muon: An optimizer for hidden layers in
neural networks"), the embedding and the norms with AdamW (Loshchilov and Hutter, 2019, "Decoupled
Weight Decay Regularization"). The learning rate stays flat, then falls to zero over the last fifth.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from course_lib.data.batches import consecutive_windows, random_windows
from course_lib.data.text import bible_chapters, split
from course_lib.models.llama import Llama, initialize
from course_lib.models.pretrained import CHECKPOINTS, TINY
from course_lib.models.tokenizer import tokens_of, train_tokenizer
from course_lib.models.training import (
    follow_rate,
    make_optimizers,
    next_token_loss,
    rate_factor,
)
from course_lib.models.training import train as train_steps
from course_lib.places import cache_folder

STEPS, BATCH, SAVE_EVERY = 4000, 8, 250


def train(
    model: Llama,
    tokens: Tensor,
    steps: int,
    state_file: Path,
    seed: int = 0,
    track: Callable = tqdm,
) -> None:
    """Train `model` in place for `steps` steps on windows of `tokens`.

    Every 250 steps all that the training depends on goes to `state_file`; where that file exists,
    training goes on from it and ends with the same weights as a run that was never stopped.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizers = make_optimizers(model)
    done = _load_state(state_file, model, optimizers, generator) if state_file.exists() else 0
    while done < steps:
        stop = min(steps, done + SAVE_EVERY)
        schedules = follow_rate(optimizers, lambda k, done=done: rate_factor(done + k, steps))
        batches = (
            random_windows(tokens, BATCH, model.config.context, generator)
            for _ in track(range(done, stop), initial=done, total=steps)
        )
        train_steps(model, batches, next_token_loss, optimizers, schedules, longest=1.0)
        done = stop
        _save_state(state_file, done, model, optimizers, generator)


def _save_state(path: Path, step: int, model, optimizers, generator) -> None:
    """Write the whole state beside `path`, then put it in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "generator": generator.get_state(),
    }
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def _load_state(path: Path, model, optimizers, generator) -> int:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    generator.set_state(state["generator"])
    return state["step"]


@torch.no_grad()
def held_out_loss(model: Llama, tokens: Tensor) -> float:
    """Mean loss in nats per token over consecutive windows of `tokens`."""
    inputs, targets = consecutive_windows(tokens, model.config.context)
    losses = [
        F.cross_entropy(model(some).flatten(0, 1), wanted.flatten(), reduction="sum").item()
        for some, wanted in zip(inputs.split(16), targets.split(16), strict=True)
    ]
    return sum(losses) / targets.numel()


def main() -> None:
    """Train TinyLM and write its checkpoint, in float16, and its tokenizer."""
    train_text, held_out_text = split(bible_chapters("kjv"))
    tokenizer = train_tokenizer(train_text, TINY.vocabulary)
    torch.manual_seed(0)
    model = Llama(TINY)
    initialize(model)
    state_file = cache_folder() / "train_tiny.pt"
    train(model, tokens_of(tokenizer, train_text), STEPS, state_file)
    loss = held_out_loss(model, tokens_of(tokenizer, held_out_text))
    print(f"held-out loss: {loss:.4f} nats per token")
    tokenizer.save(str(CHECKPOINTS / "tiny_tokenizer.json"))
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, CHECKPOINTS / "tiny.safetensors")


if __name__ == "__main__":
    main()
