"""The linear recurrence inside the selective scan, token by token and in place.

Tensors have tokens first: x and step (L, b, d), B and C (L, b, n), the states (b, n, d), so that
one token of all sequences is contiguous. Work is cut into blocks of sequences and tiles of tokens:
whatever does not depend on the previous state is computed for a whole tile at once, and a tile's
states stay in the cache.
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
        """Return views of some of the sequences."""
        x, step, B, C = (part[:, sequences] for part in self[:4])
        return Inputs(x, step, B, C, self.rates)


class _Buffers(NamedTuple):
    """One tile's decays (tile, b, n, d) and states (tile + 1, b, n, d), the first from before."""

    decay: Tensor
    states: Tensor


def run_recurrence(inputs: Inputs, *, keep_states: bool = False) -> tuple[Tensor, Tensor | None]:
    """Run h(t) = exp(step(t) rates) h(t-1) + step(t) B(t) x(t), y(t) = C(t) . h(t).

    Returns
    -------
    y : Tensor, shape (L, b, d)
    kept : Tensor, shape (n_tiles, b, n, d), the state before each tile of tokens; None unless
        `keep_states`.
    """
    y = torch.empty_like(inputs.x)
    n_tokens, n_sequences, n_channels = y.shape
    kept = None
    if keep_states:
        n_tiles = math.ceil(n_tokens / TILE)
        kept = y.new_empty(n_tiles, n_sequences, len(inputs.rates), n_channels)
    for part in _blocks(inputs):
        block = inputs.take(part)
        buffers = _make_buffers(block)
        for index, tokens in enumerate(_tiles(n_tokens)):
            if kept is not None:
                kept[index, part] = buffers.states[0]
            _, states = _advance(block, tokens, buffers)
            y[tokens, part] = torch.matmul(block.C[tokens].unsqueeze(2), states).squeeze(2)
            buffers.states[0].copy_(states[-1])
    return y, kept


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
        *saved, kept = ctx.saved_tensors
        inputs, grads = Inputs(*saved), Inputs(*(torch.zeros_like(part) for part in saved))
        with torch.autocast(grad_y.device.type, enabled=False):
            for part in _blocks(inputs):
                _go_back(inputs.take(part), grad_y[:, part], kept[:, part], grads.take(part))
        return grads


def _go_back(inputs: Inputs, grad_y: Tensor, kept: Tensor, grads: Inputs) -> None:
    """Write one block's gradients into `grads`; add to that of the rates."""
    buffers = _make_buffers(inputs)
    carry = torch.zeros_like(kept[0])  # the gradient of the tile's last state, from later tiles
    for index, tokens in reversed(list(enumerate(_tiles(len(inputs.x))))):
        buffers.states[0].copy_(kept[index])
        decay, states = _advance(inputs, tokens, buffers)
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
        before = buffers.states[: len(grad)]
        grad_exponent = grad_states.mul_(decay).mul_(before)  # of step * rates
        grads.x[tokens] = grad_drive * step
        grads.step[tokens] = torch.mul(grad_exponent, inputs.rates, out=decay).sum(2)
        grads.step[tokens] += grad_drive * x
        grads.rates.add_(grad_exponent.mul_(step.unsqueeze(2)).sum((0, 1)))


def _advance(inputs: Inputs, tokens: slice, buffers: _Buffers) -> tuple[Tensor, Tensor]:
    """Run one tile from the state in ``buffers.states[0]``; return its decays and states."""
    step = inputs.step[tokens]
    decay, states = buffers.decay[: len(step)], buffers.states[1 : len(step) + 1]
    # PyTorch's exp2 is up to four times as fast as its exp on a CPU, and as exact.
    torch.mul(step.unsqueeze(2), inputs.rates * LOG2_E, out=decay).exp2_()
    torch.mul((step * inputs.x[tokens]).unsqueeze(2), inputs.B[tokens].unsqueeze(3), out=states)
    before = buffers.states[0]
    for factor, state in zip(decay.unbind(), states.unbind(), strict=True):
        state.addcmul_(factor, before)
        before = state
    return decay, states


def _make_buffers(inputs: Inputs) -> _Buffers:
    """Return the buffers for a block of sequences, with the state before the first token."""
    n_tokens, n_sequences, n_channels = inputs.x.shape
    tile = min(TILE, n_tokens)
    shape = n_sequences, len(inputs.rates), n_channels
    decay, states = inputs.x.new_empty(tile, *shape), inputs.x.new_empty(tile + 1, *shape)
    states[0].zero_()
    return _Buffers(decay, states)


def _tiles(n_tokens: int) -> Iterator[slice]:
    for start in range(0, n_tokens, TILE):
        yield slice(start, min(start + TILE, n_tokens))


def _blocks(inputs: Inputs) -> Iterator[slice]:
    """Cut the sequences into blocks that fit into a CPU's cache; on a GPU, take all at once."""
    n_sequences = inputs.x.shape[1]
    n_blocks = math.ceil(n_sequences * TILE * inputs.rates.numel() / BLOCK_VALUES)
    size = n_sequences if inputs.x.is_cuda else math.ceil(n_sequences / max(1, n_blocks))
    for start in range(0, n_sequences, max(1, size)):
        yield slice(start, start + size)
