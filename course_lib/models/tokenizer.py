"""Byte-level BPE: text <-> token numbers, with no unknown characters.

Source: Sennrich, Haddow, Birch, 2016, "Neural Machine Translation of Rare Words with Subword
Units"; over bytes: Radford et al., 2019, "Language Models are Unsupervised Multitask Learners".
"""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train_tokenizer(text: str, vocabulary: int) -> Tokenizer:
    """Learn `vocabulary` tokens from `text`: the 256 bytes, then the most frequent merges.

    >>> tokenizer = train_tokenizer("low lower lowest", vocabulary=256 + 2)
    >>> tokenizer.encode("a low").tokens
    ['a', 'Ġ', 'low']
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer
