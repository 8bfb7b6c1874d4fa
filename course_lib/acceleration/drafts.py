"""Who guesses the next tokens: a smaller model, or the text itself.

    ModelDraft   any model with the same vocabulary; of the large one's own first layers it needs no
                 training and no memory (`models.layers.view_without_layers`)
    LookUp       no model: the last n tokens stood in the text before, so what followed them then
                 may follow now

Where a look-up's copy reaches the end of the text it reads on in what it has just copied, as LZ77
does: "ab ab ab" goes on as "ab ab ab ab …".

Sources: Leviathan et al., 2023, "Fast Inference from Transformers via Speculative Decoding"; Zhang
et al., 2023, "Draft & Verify" (the model's own layers); Yang et al., 2023, "Inference with
Reference" (copying); Saxena, 2023, "Prompt Lookup Decoding"; Ziv and Lempel, 1977, "A Universal
Algorithm for Sequential Data Compression".

Axes: T tokens of a text, S tokens in the cache, γ guesses, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.acceleration.acceptance import probabilities
from course_lib.acceleration.speculative import Guess, roll_back
from course_lib.models.llama import Llama


@dataclass(frozen=True)
class LookUp:
    """Guess that the text repeats itself: what followed its last n tokens before follows again.

    Args:
        longest, shortest: n is tried from the first down to the second; of several places the
            latest counts. If there is none, nothing is guessed.

    >>> LookUp().propose(torch.tensor([[1, 2, 3, 9, 1, 2]]), gamma=3).tokens.tolist()
    [3, 9, 1]
    """

    longest: int = 3
    shortest: int = 1

    def __post_init__(self):
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"1 ≤ shortest ≤ longest must hold; got {self}")

    def propose(
        self,
        tokens: Tensor,
        gamma: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Guess:
        """γ tokens to follow tokens (1, T), or none: it draws nothing, so q is 1 for each."""
        text = tokens[0]
        for n in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            runs = text[:-1].unfold(0, n, 1)  # (T − n, n): those that something follows
            places = (runs == text[-n:]).all(dim=1).nonzero()
            if len(places):
                start = int(places[-1]) + n
                steps = torch.arange(gamma, device=text.device) % (len(text) - start)
                return Guess(text[start + steps])
        return Guess(text[:0])


class ModelDraft:
    """A model that guesses token by token; it keeps a cache of what it has read of the text.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> ModelDraft(model).propose(torch.tensor([[5, 6]]), gamma=3).tokens.shape
    torch.Size([3])
    """

    def __init__(self, model: Llama):
        self.model = model
        self._cache = model.empty_cache()
        self._seen = torch.empty(1, 0, dtype=torch.int64)

    @torch.no_grad()
    def propose(
        self,
        tokens: Tensor,
        gamma: int,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Guess:
        """γ tokens to follow tokens (1, T), drawn from the model, with all its probabilities."""
        text, found = tokens, []
        self._forget(tokens)
        for _ in range(gamma):
            logits = self.model(text[:, self._seen.shape[1] :], self._cache)[:, -1]  # (1, V)
            self._seen = text
            if temperature == 0:
                following = logits.argmax(dim=-1, keepdim=True)  # (1, V) -> (1, 1)
            else:
                found.append(probabilities(logits, temperature))
                following = torch.multinomial(found[-1], 1, generator=generator)
            text = torch.cat([text, following], dim=1)
        return Guess(text[0, tokens.shape[1] :], torch.cat(found) if found else None)

    def _forget(self, tokens: Tensor) -> None:
        """Keep of the cache what begins this text, too; its last token is read anew in any case."""
        length = min(self._seen.shape[1], tokens.shape[1] - 1)
        same = self._seen[0, :length].to(tokens.device) == tokens[0, :length]
        same = int(same.int().cumprod(dim=0).sum())
        self._seen = tokens[:, :same]
        roll_back(self._cache, same)
