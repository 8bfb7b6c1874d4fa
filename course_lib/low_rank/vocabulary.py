"""A smaller vocabulary: tokens that a kind of text never uses, with their rows of the embedding.

What is kept is closed: with a token stay both halves of each merge that makes it, and theirs; the
bytes stay, and the special tokens. Of the merges stay those whose halves and product are kept, in
their order. Then

- *the texts from which the tokens were taken are cut into the same pieces.* BPE takes, again and
  again, the pair of neighbours that stands first in the list of merges, until no pair stands there.
  What arises on the way is a part of a final token: its half, or a half of a half, so it is kept;
  hence so is every merge that was taken. From a shorter list the same pair is the first at each
  step, and where no pair was left, none is. Words are merged one by one, so this holds for every
  text that is made of the same words;
- *any other text is still read and given back,* as bytes at worst. As a rule it takes more tokens.
  This is no theorem: a merge that is gone may have stood in the way of a better one.

On a text whose pieces stay, a model gives the same logits, less those of the tokens that are gone.
The softmax shares out what these had, so the loss of each token falls by ln(1 / Σ p of those kept).

Sources: Ushio, Zhou, Camacho-Collados, 2023, "Efficient Multilingual Language Model Compression
through Vocabulary Trimming"; Cognetta et al., 2024, "An Analysis of BPE Vocabulary Trimming in
Neural Machine Translation", which also drops the rare tokens; on BPE: Sennrich, Haddow, Birch,
2016, "Neural Machine Translation of Rare Words with Subword Units".

Axes: M tokens of the vocabulary, m tokens kept, D model width.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.models.llama import Llama


def token_counts(tokenizer: Tokenizer, texts: Iterable[str]) -> Tensor:
    """How often each token occurs in the texts, each encoded for itself: (M,), int64.

    Raises:
        TypeError: texts is one string, or holds something else than strings.

    >>> from course_lib.models.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("low lower lowest", vocabulary=256 + 2)
    >>> counts = token_counts(tokenizer, ["low", "so low"])
    >>> {tokenizer.id_to_token(i): n for i, n in enumerate(counts.tolist()) if n}
    {'o': 1, 's': 1, 'Ġ': 1, 'low': 2}
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several strings, as a list; got one string")
    found: Counter[int] = Counter()
    for text in texts:
        found.update(tokenizer.encode(text).ids)
    counts = torch.zeros(_size(tokenizer), dtype=torch.int64)
    counts[list(found.keys())] = torch.tensor(list(found.values()), dtype=torch.int64)
    return counts


def used_tokens(tokenizer: Tokenizer, texts: Iterable[str], least: int = 1) -> list[int]:
    """The numbers of the tokens that occur in the texts, ascending.

    Args:
        least: how often, in all texts together, a token must occur; at least 1.

    Raises:
        TypeError: as `token_counts`.
        ValueError: least is below 1.

    >>> from course_lib.models.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("low lower lowest", vocabulary=256 + 2)
    >>> [tokenizer.id_to_token(i) for i in used_tokens(tokenizer, ["low", "so low"], least=2)]
    ['low']
    """
    if least < 1:
        raise ValueError(f"least must be at least 1; got {least}")
    return (token_counts(tokenizer, texts) >= least).nonzero().flatten().tolist()


def new_ids(tokenizer: Tokenizer, keep: Iterable[int]) -> Tensor:
    """The number that each token has after trimming, −1 where it is gone: (M,), int64.

    What stays keeps its order. Beside `keep` that is the bytes, the special and other added tokens,
    the unknown token, and both halves of each merge that makes a token that stays.

    Args:
        tokenizer: byte-level BPE; M is its highest number and one.
        keep: numbers of tokens, in any order; none is allowed.

    Raises:
        TypeError: keep holds something else than integers.
        ValueError: keep holds a number that no token has; the tokenizer is of another kind, cuts by
            chance (dropout), or adds tokens to a text.

    >>> from course_lib.models.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("low lower lowest", vocabulary=256 + 3)
    >>> [tokenizer.id_to_token(number) for number in range(256, 259)]
    ['lo', 'low', 'Ġlow']
    >>> new_ids(tokenizer, [257])[254:].tolist()  # "lo" is a half of "low"
    [254, 255, 256, 257, -1]
    """
    state = _state(tokenizer)
    numbers = tokenizer.get_vocab()
    kept = torch.zeros(_size(tokenizer), dtype=torch.bool)
    kept[[numbers[token] for token in _closed(state, _named(numbers, keep))]] = True
    return (kept.cumsum(0) - 1).masked_fill(~kept, -1)


def trim_tokenizer(tokenizer: Tokenizer, keep: Iterable[int]) -> Tokenizer:
    """A copy that knows only the tokens that `new_ids` numbers; arguments and errors are the same.

    >>> from course_lib.models.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("low lower lowest", vocabulary=256 + 3)
    >>> trim_tokenizer(tokenizer, [257]).encode("low lowest").tokens
    ['low', 'Ġ', 'low', 'e', 's', 't']
    """
    ids, state = new_ids(tokenizer, keep).tolist(), _state(tokenizer)
    model = state["model"]
    kept = {token: ids[old] for token, old in model["vocab"].items() if ids[old] >= 0}
    model["vocab"] = kept
    model["merges"] = [(a, b) for a, b in model["merges"] if {a, b, a + b} <= kept.keys()]
    for added in state["added_tokens"]:
        added["id"] = ids[added["id"]]
    return Tokenizer.from_str(json.dumps(state))


@torch.no_grad()
def trim_vocabulary(
    model: Llama, tokenizer: Tokenizer, keep: Iterable[int]
) -> tuple[Llama, Tokenizer]:
    """Copies of a decoder and its tokenizer that know only some tokens, and what these are made of.

    Row i of the embedding, and of a head of its own, becomes row `new_ids(tokenizer, keep)[i]`.
    Rows that no token names are gone.

    Args:
        model: its embedding, and its head, must be plain ones.
        tokenizer: the model's own.
        keep: numbers of tokens, as `used_tokens` gives them; what else stays, `new_ids` says.

    Raises:
        TypeError: as `new_ids`.
        ValueError: as `new_ids`; the tokenizer has more tokens than the model; the embedding or the
            head is another kind of module.

    Source: Ushio, Zhou, Camacho-Collados, 2023 (see above), for vocabularies without merges.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokenizer = tiny()
    >>> text = "In the beginning God created the heaven and the earth."
    >>> small, cut = trim_vocabulary(model, tokenizer, used_tokens(tokenizer, [text]))
    >>> small.embedding.weight.shape, cut.encode(text).tokens == tokenizer.encode(text).tokens
    (torch.Size([288, 192]), True)
    >>> cut.decode(cut.encode("Any other text").ids)
    'Any other text'
    """
    keep = keep if isinstance(keep, Tensor) else list(keep)  # it is read twice
    ids = new_ids(tokenizer, keep)
    layers = {"embedding": nn.Embedding} | ({} if model.config.tied else {"head": nn.Linear})
    for name, kind in layers.items():
        if type(getattr(model, name)) is not kind:
            raise ValueError(
                f"model must have a plain {kind.__name__} as its {name}; "
                f"got {type(getattr(model, name)).__name__}"
            )
    if len(ids) > model.config.vocabulary:
        raise ValueError(
            f"tokenizer must have at most the model's {model.config.vocabulary} tokens; "
            f"got {len(ids)}"
        )
    rows = (ids >= 0).nonzero().flatten()  # (m,)
    model = copy.deepcopy(model)
    for name in layers:
        layer = getattr(model, name)
        weight = layer.weight[rows.to(layer.weight.device)]  # (M, D) -> (m, D)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    model.embedding.num_embeddings = len(rows)
    if not model.config.tied:
        model.head.out_features = len(rows)
    model.config = replace(model.config, vocabulary=len(rows))
    return model, trim_tokenizer(tokenizer, keep)


def _size(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab().values()) + 1


def _state(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that a tokenizer is, once it is known to be of the kind that is understood here."""
    state = json.loads(tokenizer.to_str())
    model, after = state["model"], (state["post_processor"] or {}).get("type", "ByteLevel")
    wrong = {
        "the model": model["type"] != "BPE" and model["type"],
        "dropout": model.get("dropout"),
        "continuing_subword_prefix": model.get("continuing_subword_prefix"),
        "end_of_word_suffix": model.get("end_of_word_suffix"),
        "pre_tokenizer": "ByteLevel" not in str(state["pre_tokenizer"]) and "not of bytes",
        "post_processor": after != "ByteLevel" and after,  # it adds tokens, by their numbers
        "padding": state["padding"],
    }
    wrong = {name: value for name, value in wrong.items() if value}
    if wrong:
        raise ValueError(
            "tokenizer must be byte-level BPE, without dropout, prefix, suffix, padding and tokens "
            f"around a text; got {wrong}"
        )
    return state


def _named(numbers: dict[str, int], keep: Iterable[int]) -> set[str]:
    """The tokens that have these numbers."""
    wanted = list(keep.tolist() if isinstance(keep, Tensor) else keep)
    tokens = {number: token for token, number in numbers.items()}
    for number in wanted:
        if type(number) is not int:
            raise TypeError(f"keep must hold numbers of tokens, as integers; got {number!r}")
        if number not in tokens:
            raise ValueError(f"keep must hold numbers of the tokenizer's tokens; got {number}")
    return {tokens[number] for number in wanted}


def _closed(state: dict[str, Any], kept: set[str]) -> set[str]:
    """The tokens, what must always stay, and the halves of all of them, down to the bytes."""
    model = state["model"]
    kept |= {token for token in model["vocab"] if len(token) == 1}
    kept |= {added["content"] for added in state["added_tokens"]}
    if model.get("unk_token") is not None:
        kept.add(model["unk_token"])
    longest_first = sorted(model["merges"], key=lambda pair: -len("".join(pair)))
    for left, right in longest_first:  # halves are shorter than what they make
        if left + right in kept:
            kept |= {left, right}
    return kept
