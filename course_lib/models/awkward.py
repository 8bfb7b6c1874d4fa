"""Two small models whose parameters are awkward to count: inputs of exercises, nothing to use."""

import torch
from torch import nn


class TiedModel(nn.Module):
    """An embedding whose matrix is also the output layer's, as in most small language models."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight


class FreeParameters(nn.Module):
    """Parameters that belong to no layer: a matrix, a list of vectors, one number; and a buffer."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(rows, columns))
        self.shifts = nn.ParameterList([torch.ones(rows), torch.ones(columns)])
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("positions", torch.arange(7.0))
