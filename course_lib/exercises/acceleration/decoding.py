"""Exercise of 10_acceleration: the fastest exact greedy loop for TinyLM.

Axes: T tokens of a pass, S tokens in the cache, D width, F MLP width, H query heads, G key-value
heads, E head width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.data.text import bible_chapters, split
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Pace, Property
from course_lib.models import pretrained
from course_lib.models.llama import Llama, generate, rotary_tables

DRAFTS, NEEDLE = 4, 3  # tokens drafted in a round; tokens that must have stood there before
TIE = 1e-4  # of two logits as near as that, either may be the largest: sums round
AT_MOST = 0.8  # of the CPU seconds of `generate`
LONG = 190  # tokens that a case asks for


class _Joined:
    """A decoder's weights, joined and with the norms' gains in them, and a cache of full length."""

    def __init__(self, model: Llama, length: int):
        config = model.config
        self.config, self.read = config, 0
        self.layers = [self._layer(block, length) for block in model.blocks]
        self.embedding = model.embedding.weight
        head = model.embedding if config.tied else model.head
        self.head = (head.weight * model.norm.weight).T  # (D, V)
        positions = torch.arange(length, device=head.weight.device)
        cos, sin = rotary_tables(positions, config.head_width, config.rope_base)  # (S, E)
        signs = torch.ones_like(sin[0])
        signs[: len(signs) // 2] = -1  # of the halves that change places the second is subtracted
        self.cos, self.sin = cos[:, None], (sin * signs)[:, None]  # (S, 1, E)

    def _layer(self, block, length: int) -> tuple[Tensor, ...]:
        mix, mlp = block.attention, block.mlp
        inward = torch.cat([mix.query.weight, mix.key.weight, mix.value.weight])
        gates = torch.cat([mlp.gate.weight, mlp.up.weight])
        cache = inward.new_empty(2, 1, mix.kv_heads, length, mix.head_width)  # (2, 1, G, S, E)
        return (
            (inward * block.attention_norm.weight).T.contiguous(),  # (D, (H + 2G)·E)
            mix.output.weight.T,
            (gates * block.mlp_norm.weight).T.contiguous(),  # (D, 2F)
            mlp.down.weight.T,
            cache,
        )

    def choices(self, tokens: list[int]) -> list[int]:
        """The most likely next token after each of T that follow the first `read`; reads them."""
        now = slice(self.read, self.read + len(tokens))
        x, seen = self.embedding[tokens], None  # (T, D)
        if len(tokens) > 1:
            seen = torch.ones(len(tokens), now.stop, dtype=torch.bool, device=x.device)
            seen = seen.tril(self.read)
        for inward, output, gates, down, cache in self.layers:
            mixed = self._attention(self._norm(x) @ inward, cache, now, seen)
            x = torch.addmm(x, mixed, output)
            gate, up = (self._norm(x) @ gates).chunk(2, dim=1)
            x = torch.addmm(x, F.silu(gate) * up, down)
        self.read = now.stop
        return (self._norm(x) @ self.head).argmax(dim=1).tolist()  # (T, V) -> T numbers

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.config.width,), eps=self.config.norm_epsilon)

    def _attention(self, joined: Tensor, cache: Tensor, now: slice, seen) -> Tensor:
        """(T, (H + 2G)·E) -> (T, H·E)."""
        H, G, E = self.config.heads, self.config.kv_heads, self.config.head_width
        joined = joined.view(len(joined), H + 2 * G, E)
        turned = joined[:, : H + G]
        turned = torch.addcmul(turned * self.cos[now], turned.roll(E // 2, dims=2), self.sin[now])
        cache[0, 0, :, now] = turned[:, H:].transpose(0, 1)
        cache[1, 0, :, now] = joined[:, H + G :].transpose(0, 1)
        keys, values = cache[:, :, :, : now.stop]
        queries = turned[None, :, :H].transpose(1, 2)  # (1, H, T, E)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, enable_gqa=True
        )
        return mixed[0].transpose(0, 1).flatten(1)


def look_up(text: list[int], whole: int) -> list[int]:
    """What followed the last tokens of a text where they stood before, the longest match first.

    At most DRAFTS, and such that one token more still fits into a text of `whole`.
    """
    most = min(DRAFTS, whole - len(text) - 1)
    for length in range(NEEDLE, 0, -1):
        for start in range(len(text) - length - 1, -1, -1):
            if text[start : start + length] == text[-length:]:
                return text[start + length : start + length + most]
    return []


def fast_decode(model: Llama, tokens: Tensor, count: int) -> Tensor:
    """tokens (1, T), and after them the `count` most likely next ones, one after another.

    Exactly what `generate(model, tokens, count)` of `models.llama` gives, (1, T + count), for less.
    model is an ordinary decoder in float32, not to be changed; T + count fits into its context.
    Asked for: at most 0.8 of the CPU seconds of `generate`, on the same texts. Seconds of all
    threads count, so more threads gain nothing.
    """
    text, whole = tokens.flatten().tolist(), tokens.shape[1] + count
    with torch.inference_mode():
        decoder = _Joined(model, whole)
        while len(text) < whole:
            drafted = look_up(text, whole)
            best = decoder.choices(text[decoder.read :] + drafted)[-len(drafted) - 1 :]
            text += agreed(drafted, best)
            decoder.read = len(text) - 1
    return torch.tensor([text], device=tokens.device)


def agreed(drafted: list[int], best: list[int]) -> list[int]:
    """The model's choices up to its first that was not drafted, and that one."""
    pairs = enumerate(zip(drafted, best, strict=False))
    return best[: next((place for place, (one, other) in pairs if one != other), len(drafted)) + 1]


def _permuted(model: Llama, draw: Draw) -> Llama:
    """In place: the same function, its channels in another order."""
    order = draw.order(model.config.width)
    for name, weight in model.named_parameters():
        reads = name.endswith(tuple(f"{kind}.weight" for kind in READERS))
        weight.copy_(weight[:, order] if reads else weight[order] if _writes(name) else weight)
    return model


READERS = ("embedding", "query", "key", "value", "gate", "up")


def _writes(name: str) -> bool:
    return name.endswith(("output.weight", "down.weight", "norm.weight"))


def _texts(seed: int) -> list[Case]:
    draw, (model, tokenizer) = Draw(seed), pretrained.tiny()
    chapters = split(bible_chapters("kjv"))[0].split("\n\n")
    model = _permuted(model, draw)

    def case(label: str, length: int, count: int) -> Case:
        ids = tokenizer.encode(chapters[draw.number(0, len(chapters))]).ids
        ids = (ids * (1 + length // len(ids)))[:length]
        return Case(label, {"model": model, "tokens": torch.tensor([ids]), "count": count})

    return [
        *(
            case(f"the {name} text", draw.number(12, 56), LONG + draw.number(0, 8))
            for name in NAMES
        ),
        case("the context is full", 56, model.config.context - 56),
        case("one token to begin with", 1, LONG // 2),
        case("one token to come", draw.number(20, 60), 1),
        case("two tokens to come", draw.number(20, 60), 2),
        case("nothing to come", draw.number(20, 60), 0),
    ]


NAMES = ("first", "second")


def _whole(inputs, value: Tensor) -> bool:
    tokens, count = inputs["tokens"], inputs["count"]
    whole = value.dtype == torch.int64 and value.shape == (1, tokens.shape[1] + count)
    return whole and value[:, : tokens.shape[1]].equal(tokens)


def _most_likely(inputs, value: Tensor) -> bool:
    """Of each token after the first ones; the model reads the whole text at once."""
    start = inputs["tokens"].shape[1]
    if value.shape[1] == start:
        return True
    with torch.no_grad():
        logits = inputs["model"](value[:, :-1])[0, start - 1 :]  # (count, V)
    chosen = logits.gather(1, value[0, start:, None])[:, 0]
    return bool((chosen >= logits.amax(1) - TIE).all())


def _speculates(keep_all: bool = False, check: bool = True, overshoot: bool = False):
    """The exercise with a fault: all drafts stay in the cache, or are taken; the end is missed."""

    @torch.no_grad()
    def wrong(model, tokens, count):
        text, whole = tokens[0].tolist(), tokens.shape[1] + count
        cache, read = model.empty_cache(), 0
        while len(text) < whole:
            drafted = look_up(text, whole + DRAFTS * overshoot)
            unread = torch.tensor([text[read:] + drafted], device=tokens.device)
            best = model(unread, cache)[0, -len(drafted) - 1 :].argmax(dim=1).tolist()
            text += agreed(drafted, best) if check else drafted + best[-1:]
            read = len(text) - 1
            for layer in cache if not keep_all else ():
                layer["key"], layer["value"] = (
                    layer[part][:, :, :read] for part in ("key", "value")
                )
        return torch.tensor([text], device=tokens.device)

    return wrong


def _plain_loop(model, tokens, count):
    return generate(model, tokens, count)


def _only_the_new(model, tokens, count):
    return fast_decode(model, tokens, count)[:, tokens.shape[1] :]


def _in_bfloat16(model, tokens, count):
    import copy

    return generate(copy.deepcopy(model).bfloat16(), tokens, count)


FAST_DECODE = Exercise(
    reference=fast_decode,
    cases=_texts,
    compare=False,
    seconds=20.0,
    pace=Pace(generate, AT_MOST),
    hints=(
        "There are two ways, and they add up: fewer passes, or cheaper ones. How many passes does "
        "a text need that says the same thing again and again? And what does a pass of one token "
        "do, beside multiplying by the weights?",
        "Fewer: look the last tokens up in the text so far, draft what followed them there, and "
        "let the model read the drafts in one pass (verify_drafts). Four drafts are about right: a "
        "pass of five tokens takes a little longer than a pass of one.",
        "Cheaper: before the loop, put the norms' gains into the next matrices, join query, key "
        "and value into one matrix, and gate and up; make the rotary tables once, and a cache that "
        "is as long as the text will be, to write into instead of torch.cat. One new token needs "
        "no mask.",
    ),
    properties=(
        Property("T + count tokens in int64, and the first are those given", _whole, form=True),
        Property("each new token is the model's most likely after those before it", _most_likely),
    ),
    misconceptions=(
        Misconception(
            "the plain loop",
            _plain_loop,
            "the text is right, and takes as long as before, or longer. A cache alone is what "
            "`generate` has, too; to read the whole text for each token takes several times as "
            "long. Read fewer times, or make each pass cheaper.",
        ),
        Misconception(
            "drafts that nobody checks",
            _speculates(check=False),
            "the drafts were taken without asking the model: the text repeats what was said "
            "before. A draft counts only where it is the model's own choice.",
        ),
        Misconception(
            "refused drafts stay in the cache",
            _speculates(keep_all=True),
            "after a refused draft the cache still holds it, and all that follows attends to "
            "tokens that are not in the text. Cut it back after each round.",
        ),
        Misconception(
            "past the end",
            _speculates(overshoot=True),
            "the last round gave more tokens than were asked for. Draft at most what is left but "
            "one, or cut the end off.",
        ),
        Misconception(
            "only the new tokens",
            _only_the_new,
            "only the new tokens were returned. `generate` gives the given ones, too.",
        ),
        Misconception(
            "in bfloat16",
            _in_bfloat16,
            "a model of rounded weights is another model: sooner or later another token is the "
            "most likely one. Exact is asked for.",
        ),
    ),
)
