"""Hadamard matrices: n × n, of 1 and −1, with rows at right angles: H Hᵀ = n I.

H / √n is a rotation (or a mirroring) that mixes every input into every output with the same weight:
no single number of a vector can stay large by itself. Larger ones are made from smaller ones,

    H(2n) = [[H(n), H(n)], [H(n), −H(n)]]      (Sylvester)

and the first ones, of order 12, 20, 28, 36 …, from which numbers are squares modulo a prime q:
one of order q + 1 if 4 divides that, else of order 2 (q + 1).

Source: Paley, 1933, "On Orthogonal Matrices".
"""

import torch
from torch import Tensor


def hadamard(n: int) -> Tensor:
    """A Hadamard matrix (n, n), float64.

    Raises:
        ValueError: n is none of the orders that doubling, and Paley with a prime, can make.

    >>> hadamard(2)
    tensor([[ 1.,  1.],
            [ 1., -1.]], dtype=torch.float64)
    """
    found = _hadamard(n)
    if found is None:
        raise ValueError(f"n must be the order of a Hadamard matrix known here; got {n}")
    return found


def _hadamard(n: int) -> Tensor | None:
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = _hadamard(n // 2) if n > 1 and n % 2 == 0 else None
    if half is not None:
        return torch.cat([torch.cat([half, half], dim=1), torch.cat([half, -half], dim=1)])
    if n % 4:
        return None
    if _is_prime(n - 1):  # q = n − 1, and q mod 4 is 3
        return torch.eye(n, dtype=torch.float64) + _bordered_squares(n - 1)
    if _is_prime(n // 2 - 1) and (n // 2 - 1) % 4 == 1:
        mixed = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        crossed = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        squares = _bordered_squares(n // 2 - 1)
        eye = torch.eye(n // 2, dtype=torch.float64)
        return torch.kron(squares, mixed) + torch.kron(eye, crossed)
    return None


def _bordered_squares(q: int) -> Tensor:
    """(q + 1, q + 1): inside, 1 where i − j is a square modulo q, −1 where not, 0 where i = j.

    The border is 1, with the sign that makes the matrix as (anti)symmetric as its inside.
    """
    character = -torch.ones(q, dtype=torch.float64)
    character[torch.arange(1, q).square() % q] = 1
    character[0] = 0
    numbers = torch.arange(q)
    bordered = torch.zeros(q + 1, q + 1, dtype=torch.float64)
    bordered[1:, 1:] = character[(numbers[:, None] - numbers) % q]
    bordered[0, 1:] = 1
    bordered[1:, 0] = 1 if q % 4 == 1 else -1
    return bordered


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % d for d in range(2, int(q**0.5) + 1))
