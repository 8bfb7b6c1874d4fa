"""Turn a decoder's residual stream: the same model, whose outliers are spread over all directions.

A few of the D coordinates of the residual stream hold huge numbers, and set the scale at which all
others are rounded. But coordinates are our choice. With an orthogonal Q, every reader of x is given
x Q instead, and undoes it; every writer turns what it adds:

    norm(x) · w, then W        becomes    norm(x Q), then (W diag(w)) Q      query key value gate up
    x + W y                    becomes    x Q + (Qᵀ W) y                     output down
    E (norm(x) · w)            becomes    (E diag(w) Q) norm(x Q)            the head

A norm without weights commutes with Q, as ‖x Q‖ = ‖x‖; so its weights are folded into the next
matrices first. The head and the embedding E then differ, and the file holds both.

What `down` is given is not the residual stream, and no fold can turn it: silu(gate) · up is taken
coordinate by coordinate. It can be turned as it comes ("online"), at the price of one more product
for each token; as a Hadamard matrix needs no multiplications, that is cheap.

Source: Ashkboos et al., 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs". They turn
each head's values, keys and queries, too; here only the stream and the inputs of `down`.

Axes: D model width, F hidden width of the MLP, O outputs, I inputs, V vocabulary.
"""

import torch
from torch import Tensor, nn

from course_lib.language_models.hadamard import hadamard
from course_lib.models.finite import check_finite
from course_lib.models.llama import MLP, Block, Llama
from course_lib.models.norms import fold_norms, untied


def random_hadamard(n: int, generator: torch.Generator) -> Tensor:
    """diag(±1) H / √n with random signs: a rotation (n, n), float64, made of ± 1/√n.

    Raises:
        ValueError: n is no order that `hadamard` knows.

    >>> turn = random_hadamard(4, torch.Generator().manual_seed(0))
    >>> turn.abs().unique().tolist(), torch.allclose(turn @ turn.T, torch.eye(4).double())
    ([0.5], True)
    """
    signs = torch.randint(2, (n, 1), generator=generator) * 2 - 1
    return signs * hadamard(n) / n**0.5


def random_orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """A rotation or mirroring (n, n), float64, drawn evenly from all there are.

    Q of the factorization Q R of a Gaussian matrix, with the signs that make R's diagonal positive.

    Source: Mezzadri, 2007, "How to Generate Random Matrices from the Classical Compact Groups".

    >>> turn = random_orthogonal(3, torch.Generator().manual_seed(0))
    >>> torch.allclose(turn @ turn.T, torch.eye(3).double())
    True
    """
    q, r = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


class TurnedMLP(MLP):
    """An MLP, with the same layers, that turns what `down` is given as it comes.

    The rotation is not among the tensors that are saved: its seed tells it.

    >>> from course_lib.models.llama import LlamaConfig
    >>> mlp = MLP(LlamaConfig(9, width=8, layers=1, heads=2, kv_heads=2, mlp_width=2, context=4))
    >>> turned = TurnedMLP(mlp, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    >>> x = torch.randn(5, 8)
    >>> torch.equal(turned.products(x)[:, 1], mlp.products(x)[:, 0])
    True
    """

    def __init__(self, mlp: MLP, rotation: Tensor):
        nn.Module.__init__(self)
        self.gate, self.up, self.down = mlp.gate, mlp.up, mlp.down
        self.register_buffer("rotation", rotation.to(mlp.down.weight), persistent=False)

    def products(self, x: Tensor) -> Tensor:
        """(silu(gate(x)) · up(x)) R, (B, T, D) -> (B, T, F)."""
        return super().products(x) @ self.rotation


@torch.no_grad()
def rotated(model: Llama, residual: Tensor, hidden: Tensor | None = None) -> Llama:
    """A copy of a decoder that gives the same logits, with its residual stream turned.

    The logits of a float32 model agree to about 1e-5 of the largest.

    Args:
        model: of any float type; products are taken in float64.
        residual: Q, orthogonal, (D, D).
        hidden: if given, what `down` is given is turned by it online, orthogonal, (F, F).

    Returns:
        A model with a head of its own (`config.tied` is False) and norms whose weights are 1.

    Raises:
        ValueError: a matrix is not orthogonal, or of another shape; a weight is NaN or infinite;
            `hidden` is given twice, the second time for the model that the first gave.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.tensor([[3, 1, 4, 1, 5]])
    >>> turned = rotated(model, random_hadamard(192, torch.Generator().manual_seed(0)))
    >>> torch.allclose(turned(tokens), model(tokens), atol=1e-4)
    True
    """
    residual = _orthogonal(residual, model.config.width, "residual", model)
    for name, weight in model.named_parameters():
        check_finite(weight, name)
    model = untied(model)
    fold_norms(model)
    _multiply(model.embedding, residual)
    _multiply(model.head, residual)
    for block in model.blocks:
        _turn_block(block, residual)
    if hidden is not None:
        hidden = _orthogonal(hidden, model.config.mlp_width, "hidden", model)
        if any(isinstance(block.mlp, TurnedMLP) for block in model.blocks):
            raise ValueError("hidden must be None for a model that turns those inputs already")
        for block in model.blocks:
            _multiply(block.mlp.down, hidden)
            block.mlp = TurnedMLP(block.mlp, hidden)
    return model


def _turn_block(block: Block, residual: Tensor) -> None:
    """In place: readers W Q, writers Qᵀ W."""
    attention, mlp = block.attention, block.mlp
    for layer in (attention.query, attention.key, attention.value, mlp.gate, mlp.up):
        _multiply(layer, residual)
    for layer in (attention.output, mlp.down):
        layer.weight.copy_(residual.T @ layer.weight.double())


def _multiply(layer: nn.Module, rotation: Tensor) -> None:
    """In place: W ← W Q, in float64."""
    layer.weight.copy_(layer.weight.double() @ rotation)


def _orthogonal(matrix: Tensor, n: int, name: str, model: Llama) -> Tensor:
    """The matrix in float64, on the model's device, once it is (n, n) and orthogonal."""
    if matrix.shape != (n, n):
        raise ValueError(f"{name} must have shape {(n, n)}; got {tuple(matrix.shape)}")
    check_finite(matrix, name)
    matrix = matrix.to(model.embedding.weight.device, torch.float64)
    off = (matrix @ matrix.T - torch.eye(n).to(matrix)).abs().max().item()
    if off > 1e-5:  # float32's rounding makes 1e-6
        raise ValueError(f"{name} must be orthogonal; its Q Qᵀ is off from I by up to {off:.1g}")
    return matrix
