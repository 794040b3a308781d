"""Conv4's blocks on sets of images, storing half as much for the backward pass as PyTorch's layers.

A block is a convolution, a norm, 2x2 max-pooling and a ReLU. Once the moments of the convolution's
output x are known, the norm is a scale and a shift per channel. With a scale >= 0 it commutes with
the pooling:

    block(y) = relu(scale * maxima(x) + shift),   x = convolution(y),

so only a quarter of the elements is ever normalised. The backward pass needs x, the position of
each maximum (one byte) and the maxima; the input y is recomputed from the maxima of the block
before. PyTorch's layers store x, the normalised x, 64-bit positions and y, which is twice as much.

Both passes process a block in pieces of a few images, which keeps temporaries small. On the CPU the
pieces are small enough that the output of one operation is still in the cache for the next.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Bytes of a convolution's output in one piece. On the CPU 8 MB was the fastest of 2 to 40 MB for
# images of 28, 32 and 84 pixels, on two cores with 1 MiB of second-level cache each. The value for
# accelerators should fill a GPU; it has not been measured.
_AT_ONCE = {"cpu": 8 * 10**6, "accelerator": 64 * 10**6}
_SETS_AT_ONCE = 4
"""Maximum on the CPU. More are hardly faster; the limit makes peak memory linear in the sets."""


def features(blocks: Sequence[nn.Sequential], images: Tensor) -> Tensor:
    """Apply `blocks` to images [sets, n, channels, height, width]: [sets, n, filters, ...].

    The result equals that of the blocks on each set alone, up to rounding. Gradients flow to the
    parameters of the blocks but not to the images, and cannot be differentiated again.
    """
    sets, n = images.shape[:2]
    if isinstance(blocks[0][1], nn.GroupNorm):
        # Each image is normalised separately, so it is a set.
        images = images.flatten(0, 1)[:, None]
    maxima, scale, shift = images, None, None
    for block in blocks:
        maxima, scale, shift = _block(block, maxima, scale, shift, _SETS_AT_ONCE * n)
    return _activated(maxima, scale, shift).reshape(sets, n, *maxima.shape[2:])


def _block(
    block: nn.Sequential, maxima: Tensor, scale: Tensor | None, shift: Tensor | None, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima, scale and shift of a block from those of the block before.

    Args:
        block: the layers.
        maxima: of the block before, or the images.
        scale: of the block before; None for images.
        shift: of the block before; None for images.
        limit: maximum number of images per piece on the CPU.
    """
    norm: Any = block[1]
    weight = cast(nn.Conv2d, block[0]).weight
    # The sign of the norm's weight moves into the convolution, so that the scale is >= 0.
    sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
    constant = isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
    maxima, mean, variance = _ConvolutionMaxima.apply(  # type: ignore[no-untyped-call]
        maxima, scale, shift, sign[:, None, None, None] * weight, not constant, limit
    )
    if constant:
        mean = (sign * norm.running_mean).expand(len(maxima), -1)
        variance = norm.running_var.expand(len(maxima), -1)
    elif isinstance(norm, nn.GroupNorm):
        mean, variance = _group_moments(mean, variance, sign, norm.num_groups)
    scale = sign * norm.weight * torch.rsqrt(variance + norm.eps)
    return maxima, scale, norm.bias - scale * mean


def _group_moments(
    mean: Tensor, variance: Tensor, sign: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Moments of groups of channels from the moments of channels, all [sets, channels].

    Both means are those of the outputs times `sign`.
    """
    shape = (len(mean), groups, -1)
    means = (sign * mean).view(shape)
    group_mean = means.mean(-1, keepdim=True)
    spread = variance.view(shape) + (means - group_mean).square()
    group_variance = spread.mean(-1, keepdim=True)
    return sign * group_mean.expand_as(means).flatten(1), group_variance.expand_as(means).flatten(1)


class _ConvolutionMaxima(torch.autograd.Function):
    """2x2 maxima and moments of the convolution of relu(scale * maxima + shift).

    Arguments of forward: maxima [sets, n, channels, height, width]; scale and shift
    [sets, channels], None for the first block, whose input is images; the weight of a 3x3
    convolution; whether to compute the moments; maximum number of images per piece on the CPU.

    It returns the maxima of the output [sets, n, filters, height // 2, width // 2], and the mean
    and variance of the output in each set, [sets, filters] or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        maxima: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        weight: Tensor,
        moments: bool,
        limit: int,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.pieces = _pieces(maxima, weight, limit)
        ctx.outputs, ctx.positions = [], []
        sets, n, _, height, width = maxima.shape
        result = _empty(maxima, (sets, n, len(weight), height // 2, width // 2))
        corners = _corners(maxima)
        # Positions are stored relative to the corner of their window: 0, 1, width or width + 1.
        position_type = torch.uint8 if width < 255 else torch.int32
        means = maxima.new_empty(sets, ctx.pieces[-1].part + 1, len(weight))
        variances = torch.empty_like(means)
        for piece in ctx.pieces:
            y = _input(maxima, scale, shift, piece)
            x, positions = _convolution_maxima(y, weight, result[piece.sets, piece.images])
            if moments:
                where = piece.sets, piece.part
                means[where], variances[where] = _moments(x.to(means.dtype))
            if any(ctx.needs_input_grad):
                ctx.outputs.append(x)
                ctx.positions.append(positions.sub_(corners).to(position_type))
            del y, x, positions
        set_moments = _set_moments(means, variances, ctx.pieces, n) if moments else (None, None)
        ctx.save_for_backward(maxima, scale, shift, weight, set_moments[0])
        return result, *set_moments

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_result: Tensor, grad_mean: Tensor | None, grad_variance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        maxima, scale, shift, weight, mean = ctx.saved_tensors
        corners = _corners(maxima)
        line = None if mean is None else _moments_gradient(grad_mean, grad_variance, mean, maxima)
        grad_weight = torch.zeros_like(weight)
        first = scale is None
        grad_maxima: Any = None if first else _empty(maxima, maxima.shape)
        grad_scale: Any = None if first else torch.zeros_like(scale)
        grad_shift: Any = None if first else torch.zeros_like(shift)
        for piece in ctx.pieces:
            where = piece.sets, piece.images
            x, positions = ctx.outputs.pop(0), ctx.positions.pop(0).long().add_(corners)
            piece_line = None if line is None else [each[piece.sets] for each in line]
            # Run the convolution's backward pass in the precision that autocast chose for forward.
            precision = x.dtype
            grad_x = _output_gradient(grad_result[where], x.to(maxima.dtype), positions, piece_line)
            del x, positions
            y = _input(maxima, scale, shift, piece)
            grad_y, piece_grad_weight, _ = torch.ops.aten.convolution_backward(
                grad_x.to(precision), y.flatten(0, 1).to(precision), weight.to(precision), None,
                [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [not first, True, False],
            )  # fmt: skip
            grad_weight += piece_grad_weight
            del grad_x
            if not first:
                grad_y = torch.ops.aten.threshold_backward(grad_y.view_as(y), y, 0)
                grad_shift[piece.sets] += grad_y.sum((1, 3, 4))
                grad_scale[piece.sets] += (grad_y * maxima[where]).sum((1, 3, 4))
                torch.mul(grad_y, _channels(scale[piece.sets]), out=grad_maxima[where])
            del y, grad_y
        return grad_maxima, grad_scale, grad_shift, grad_weight, None, None


def _convolution_maxima(y: Tensor, weight: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """Convolve y [sets', n', ...] and write the 2x2 maxima to `result`.

    Returns:
        The convolution's output [sets', n', filters, height, width], and the positions of the
        maxima in it.
    """
    x = F.conv2d(y.flatten(0, 1), weight, padding=1)
    maxima, positions = F.max_pool2d(x, 2, return_indices=True)
    result.copy_(maxima.view_as(result))
    return x.view(*y.shape[:2], *x.shape[1:]), positions


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each set and channel, [sets, filters]."""
    mean = x.mean((1, 3, 4))
    return mean, (x - _channels(mean)).square_().mean((1, 3, 4))


def _output_gradient(
    grad_maxima: Tensor, x: Tensor, positions: Tensor, line: Sequence[Tensor] | None
) -> Tensor:
    """Gradient in a convolution's output x, with sets and images in one dimension.

    Args:
        grad_maxima: gradient in the maxima.
        x: the output.
        positions: where the maxima are in x.
        line: slope and constant of `_moments_gradient`; None if the moments have no gradient.
    """
    grad_x: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        grad_maxima.flatten(0, 1), x.flatten(0, 1),
        [2, 2], [2, 2], [0, 0], [1, 1], False, positions,
    )  # fmt: skip
    if line is not None:
        slope, constant = map(_channels, line)
        grad_x.view_as(x).addcmul_(x, slope).add_(constant)
    return grad_x


def _set_moments(
    means: Tensor, variances: Tensor, pieces: Sequence["_Piece"], n: int
) -> tuple[Tensor, Tensor]:
    """Moments of sets of n images, [sets, filters], from those of parts, [sets, parts, filters]."""
    sizes = [piece.images.stop - piece.images.start for piece in pieces[: means.shape[1]]]
    shares = means.new_tensor(sizes)[:, None] / n
    mean = (shares * means).sum(1)
    return mean, (shares * (variances + (means - mean[:, None]).square())).sum(1)


def _moments_gradient(
    grad_mean: Tensor | None, grad_variance: Tensor | None, mean: Tensor, maxima: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope and constant of the gradient slope * x + constant through the moments.

    Both are [sets, filters].
    """
    pixels = maxima.shape[1] * maxima.shape[3] * maxima.shape[4]
    zeros = torch.zeros_like(mean)
    slope = (zeros if grad_variance is None else grad_variance) * 2 / pixels
    return slope, (zeros if grad_mean is None else grad_mean) / pixels - slope * mean


class _Piece(NamedTuple):
    """Images that are processed together: one or more sets, or a part of one set."""

    sets: slice
    images: slice
    part: int
    """Index of the part within its set; 0 for whole sets."""


def _pieces(maxima: Tensor, weight: Tensor, limit: int) -> list[_Piece]:
    sets, n, _, height, width = maxima.shape
    image_bytes = len(weight) * height * width * weight.element_size()
    on_cpu = maxima.device.type == "cpu"
    at_once = max(1, _AT_ONCE["cpu" if on_cpu else "accelerator"] // image_bytes)
    if on_cpu:
        at_once = min(at_once, limit)
    if at_once >= n:
        step = at_once // n
        return [_Piece(slice(s, s + step), slice(0, n), 0) for s in range(0, sets, step)]
    size = -(-n // -(-n // at_once))
    return [
        _Piece(slice(s, s + 1), slice(i, min(i + size, n)), i // size)
        for s in range(sets)
        for i in range(0, n, size)
    ]


def _input(maxima: Tensor, scale: Tensor | None, shift: Tensor | None, piece: _Piece) -> Tensor:
    """Input of the convolution for a piece, [sets', n', channels, height, width]."""
    piece_maxima = maxima[piece.sets, piece.images]
    if scale is None or shift is None:
        return piece_maxima
    return _activated(piece_maxima, scale[piece.sets], shift[piece.sets])


def _activated(maxima: Tensor, scale: Any, shift: Any) -> Tensor:
    return torch.addcmul(_channels(shift), maxima, _channels(scale)).relu_()


def _channels(values: Tensor) -> Tensor:
    """Values [sets, channels], to broadcast with tensors [sets, n, channels, height, width]."""
    return values[:, None, :, None, None]


def _corners(maxima: Tensor) -> Tensor:
    """Index in its image of the first element of each window, [height // 2, width // 2]."""
    height, width = maxima.shape[3:]
    rows = 2 * width * torch.arange(height // 2, device=maxima.device)
    return rows[:, None] + 2 * torch.arange(width // 2, device=maxima.device)


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """[sets, n, channels, height, width], channels last in memory."""
    sets, n, channels, height, width = shape
    return like.new_empty(sets, n, height, width, channels).movedim(-1, 2)
