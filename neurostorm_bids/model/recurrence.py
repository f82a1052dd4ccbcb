"""The linear recurrence inside the selective scan, token by token and in place.

Tensors have tokens first: x and step (L, b, d), B and C (L, b, n), states (b, n, d), so that one
token of all sequences is contiguous. Work is cut into blocks of sequences and tiles of tokens:
what does not depend on the state before is computed for a whole tile at once, and a tile's states
stay in the cache.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

TILE = 16
"""Tokens per tile; also the distance between the states that the gradient starts from."""
BLOCK_VALUES = 2**20
"""State values of one tile over a block of sequences, at most: 4 MiB in float32."""
LOG2_E = 1 / math.log(2)


class Inputs(NamedTuple):
    """What the recurrence reads.

    Attributes
    ----------
    x, step : Tensor, shape (L, b, d)
    B, C : Tensor, shape (L, b, n)
    rates : Tensor, shape (n, d), any values.
    """

    x: Tensor
    step: Tensor
    B: Tensor
    C: Tensor
    rates: Tensor

    def take(self, sequences: slice) -> Inputs:
        """Return some of the sequences; all as they lie, fewer as contiguous copies."""
        x, step, B, C = (part[:, sequences].contiguous() for part in self[:4])
        return Inputs(x, step, B, C, self.rates)


class _Tile(NamedTuple):
    """Room for one tile of a block, used again for every tile.

    Attributes
    ----------
    decay : Tensor, shape (TILE, b, n, d)
    states : Tensor, shape (TILE + 1, b, n, d), the first from before the tile.
    decays, each_state : the same, token by token.
    rates : Tensor, shape (n, d), those of the inputs times log2(e).
    """

    decay: Tensor
    states: Tensor
    decays: tuple[Tensor, ...]
    each_state: tuple[Tensor, ...]
    rates: Tensor


def run_recurrence(inputs: Inputs, *, keep_states: bool = False) -> tuple[Tensor, Tensor | None]:
    """Run h(t) = exp(step(t) rates) h(t-1) + step(t) B(t) x(t), y(t) = C(t) . h(t).

    Returns
    -------
    y : Tensor, shape (L, b, d)
    kept : Tensor, shape (n_tiles, b, n, d), the state before each tile of tokens; None unless
        `keep_states`.
    """
    outputs, kept = [], []
    for block in _cut_blocks(inputs):
        starts: list[Tensor] | None = [] if keep_states else None
        outputs.append(_run_block(block, starts))
        if starts is not None:
            kept.append(torch.stack(starts))
    return _join(outputs), _join(kept) if keep_states else None


class Recurrence(Function):
    """`run_recurrence` with its gradient.

    The gradient runs the recurrence again from the kept states, tile by tile from the last to the
    first, so that its memory is one state in `TILE` rather than all of them.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:  # noqa: ANN401 - autograd's own context
        """Return y (L, b, d) of the fields of `Inputs`."""
        y, kept = run_recurrence(Inputs(*inputs), keep_states=True)
        ctx.save_for_backward(*inputs, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Return the gradients of the fields of `Inputs`."""
        *inputs, kept = ctx.saved_tensors
        grads, start = [], 0
        with torch.autocast(grad_y.device.type, enabled=False):
            for block in _cut_blocks(Inputs(*inputs)):
                part = slice(start, start := start + block.x.shape[1])
                grads.append(_run_block_back(block, grad_y[:, part].contiguous(), kept[:, part]))
        x, step, B, C, rates = zip(*grads, strict=True)
        return _join(x), _join(step), _join(B), _join(C), torch.stack(rates).sum(0)


def _run_block(inputs: Inputs, starts: list[Tensor] | None) -> Tensor:
    """Return y (L, b, d) of one block; append the state before each tile to `starts`."""
    n_sequences, n_states, n_channels = inputs.x.shape[1], *inputs.rates.shape
    y = torch.empty_like(inputs.x)
    tile = _make_tile(inputs)
    for tokens in _cut_tiles(len(y)):
        if starts is not None:
            starts.append(tile.states[0].clone())
        _, states = _advance(inputs, tokens, tile)
        n_rows = len(states) * n_sequences
        torch.bmm(
            inputs.C[tokens].view(n_rows, 1, n_states),
            states.view(n_rows, n_states, n_channels),
            out=y[tokens].view(n_rows, 1, n_channels),
        )
        tile.states[0].copy_(states[-1])
    return y


def _run_block_back(inputs: Inputs, grad_y: Tensor, kept: Tensor) -> Inputs:
    """Return the gradients of one block's inputs from that of its y (L, b, d)."""
    grads = Inputs(*(torch.zeros_like(part) for part in inputs))
    tile = _make_tile(inputs)
    carry = torch.zeros_like(tile.states[0])  # what later tiles say of a tile's last state
    for index, tokens in reversed(list(enumerate(_cut_tiles(len(grad_y))))):
        tile.states[0].copy_(kept[index])
        decay, states = _advance(inputs, tokens, tile)
        x, step, B, C = (part[tokens] for part in inputs[:4])
        grad = grad_y[tokens]
        grad_states = C.unsqueeze(3) * grad.unsqueeze(2)  # (tile, b, n, d)
        grad_states[-1] += carry
        for token in range(len(grad) - 1, 0, -1):
            grad_states[token - 1].addcmul_(decay[token], grad_states[token])
        carry = decay[0] * grad_states[0]

        grad_drive = torch.matmul(B.unsqueeze(2), grad_states).squeeze(2)  # of step * x
        grads.C[tokens] = torch.matmul(states, grad.unsqueeze(3)).squeeze(3)
        grads.B[tokens] = torch.matmul(grad_states, (step * x).unsqueeze(3)).squeeze(3)
        grad_exponent = grad_states.mul_(decay).mul_(tile.states[: len(grad)])  # of step * rates
        grads.x[tokens] = grad_drive * step
        grads.step[tokens] = torch.mul(grad_exponent, inputs.rates, out=decay).sum(2)
        grads.step[tokens] += grad_drive * x
        grads.rates.add_(grad_exponent.mul_(step.unsqueeze(2)).sum((0, 1)))
    return grads


def _advance(inputs: Inputs, tokens: slice, tile: _Tile) -> tuple[Tensor, Tensor]:
    """Run one tile from the state in ``tile.states[0]``; return its decays and states."""
    step = inputs.step[tokens]
    decay, states = tile.decay[: len(step)], tile.states[1 : len(step) + 1]
    # PyTorch's exp2 is up to four times as fast as its exp on a CPU, and as exact.
    torch.mul(step.unsqueeze(2), tile.rates, out=decay).exp2_()
    torch.mul((step * inputs.x[tokens]).unsqueeze(2), inputs.B[tokens].unsqueeze(3), out=states)
    for token in range(len(step)):
        tile.each_state[token + 1].addcmul_(tile.decays[token], tile.each_state[token])
    return decay, states


def _make_tile(inputs: Inputs) -> _Tile:
    """Return the room for a block of sequences, with the state before the first token."""
    n_tokens, n_sequences, n_channels = inputs.x.shape
    size, shape = min(TILE, n_tokens), (n_sequences, len(inputs.rates), n_channels)
    decay, states = inputs.x.new_empty(size, *shape), inputs.x.new_empty(size + 1, *shape)
    states[0].zero_()
    return _Tile(decay, states, decay.unbind(), states.unbind(), inputs.rates * LOG2_E)


def _cut_tiles(n_tokens: int) -> Iterator[slice]:
    for start in range(0, n_tokens, TILE):
        yield slice(start, min(start + TILE, n_tokens))


def _cut_blocks(inputs: Inputs) -> Iterator[Inputs]:
    """Cut the sequences into blocks that fit into a CPU's cache; on a GPU, take all at once."""
    n_sequences = inputs.x.shape[1]
    n_blocks = math.ceil(n_sequences * TILE * inputs.rates.numel() / BLOCK_VALUES)
    size = math.ceil(n_sequences / n_blocks) if inputs.x.device.type == "cpu" else n_sequences
    for start in range(0, n_sequences, size):
        yield inputs.take(slice(start, start + size))


def _join(blocks: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Put the blocks' sequences side by side again."""
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks), dim=1)
