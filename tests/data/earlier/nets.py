"""The networks of the earlier checkpoints: their code is as it was, for call sites are found by it."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Cnn(nn.Module):
    """Conv + BN + ReLU, a residual sum, a depthwise layer, a product, concatenation, max pooling."""

    shapes = ((1, 3, 8, 8),)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(256, 5)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(x + self.point(self.depthwise(x)))
        y = torch.cat((self.pool(y), self.pool(y * x)), 1)
        return self.fc(y.flatten(1))


class Pooled(nn.Module):
    """Average pooling, a transposed convolution, an activation."""

    shapes = ((1, 4, 8, 8),)

    def __init__(self):
        super().__init__()
        self.a, self.up = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.pool, self.fc = nn.AvgPool2d(4), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.sigmoid(self.up(F.relu(self.a(x))))
        return self.fc(self.pool(x).flatten(1))


class Lstm(nn.Module):
    """An embedding, an LSTM with batch first, a linear layer on every step."""

    shapes = ((1, 6),)
    words = 11

    def __init__(self):
        super().__init__()
        self.words_in, self.rnn, self.out = nn.Embedding(11, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, words):
        y, (h, _) = self.rnn(self.words_in(words))
        return self.out(y), h


class PackedLstm(nn.Module):
    """An LSTM on a packed sequence."""

    shapes = ((1, 7, 6),)
    lengths = True

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.rnn(packed)
        y, _ = pad_packed_sequence(y, batch_first=True)
        return self.out(y)


class Attention(nn.Module):
    """Multi-head attention with a residual sum, a LayerNorm and a feed-forward part."""

    shapes = ((1, 5, 8),)

    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        y = x + self.attention(x, x, x, need_weights=False)[0]
        return self.down(F.gelu(self.up(self.norm(y))))


NETS = {cls.__name__.lower(): cls for cls in (Cnn, Pooled, Lstm, PackedLstm, Attention)}


def batch(cls, seed, n=1):
    """Inputs of a network."""
    g = torch.Generator().manual_seed(seed)
    shape = (n, *cls.shapes[0][1:])
    if hasattr(cls, "words"):
        return (torch.randint(cls.words, shape, generator=g),)
    x = torch.randn(shape, generator=g)
    if hasattr(cls, "lengths"):
        return x, torch.tensor([shape[1]] if n == 1 else [shape[1], *torch.randint(2, shape[1], (n - 1,), generator=g)])
    return (x,)
