"""Conv4's blocks on sets of images, keeping less for the backward pass than PyTorch's layers do.

A block is a convolution, a norm, 2x2 max-pooling and a ReLU. Once the moments of the convolution's
output x are known the norm is one scale and shift a channel, which with a scale >= 0 changes
places with the pooling, so that

    block(y) = relu(scale * maxima(x) + shift),   x = convolution(y),

and only a quarter of the elements is ever normalised. For the backward pass x is kept, the place of
each maximum as a byte, and the maxima; the input y is made again from those of the block before.
PyTorch's layers keep x, the normalised x, 64-bit places and y: twice as much.

Both passes go through a block some images at a time, so that temporaries are small, and on the CPU
few enough that what one operation writes is in the cache when the next reads it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Bytes of a convolution's output that are in work at once. On the CPU, of 2 to 40 MB, the quickest
# on two cores with 1 MiB of second-level cache each, for 28, 32 and 84 pixels. On a GPU enough to
# fill it, and no run has confirmed that yet.
_AT_ONCE = {"cpu": 8 * 10**6, "accelerator": 64 * 10**6}
_SETS_AT_ONCE = 4
"""At most, on the CPU: more are hardly quicker, and so peak memory grows evenly with the sets."""


def features(blocks: Sequence[nn.Sequential], images: Tensor) -> Tensor:
    """What `blocks` make of the images [sets, n, channels, height, width]: [sets, n, filters, ...].

    As the blocks themselves have it to rounding, each set as if it were alone. Gradients flow to
    the blocks' parameters, but not to the images, and are not differentiable again.
    """
    sets, n = images.shape[:2]
    if isinstance(blocks[0][1], nn.GroupNorm):
        # Each image is normalised on its own.
        images = images.flatten(0, 1)[:, None]
    maxima, scale, shift = images, None, None
    for block in blocks:
        maxima, scale, shift = _block(block, maxima, scale, shift, _SETS_AT_ONCE * n)
    return _activated(maxima, scale, shift).reshape(sets, n, *maxima.shape[2:])


def _block(
    block: nn.Sequential, maxima: Tensor, scale: Tensor | None, shift: Tensor | None, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima, scale and shift of a block from those of the block before; `most` images at once."""
    norm: Any = block[1]
    weight = cast(nn.Conv2d, block[0]).weight
    # With the sign of the norm's weight in the convolution the scale is not negative.
    sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
    constant = isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats
    maxima, mean, variance = _ConvolutionMaxima.apply(  # type: ignore[no-untyped-call]
        maxima, scale, shift, sign[:, None, None, None] * weight, not constant, most
    )
    if constant:
        mean = (sign * norm.running_mean).expand(len(maxima), -1)
        variance = norm.running_var.expand(len(maxima), -1)
    elif isinstance(norm, nn.GroupNorm):
        mean, variance = _of_groups(mean, variance, sign, norm.num_groups)
    scale = sign * norm.weight * torch.rsqrt(variance + norm.eps)
    return maxima, scale, norm.bias - scale * mean


def _of_groups(mean: Tensor, variance: Tensor, sign: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Moments of groups of channels from those of channels, all [sets, channels].

    The channels' are of the outputs times `sign`, and so is the mean that is given back.
    """
    shape = (len(mean), groups, -1)
    means = (sign * mean).view(shape)
    group_mean = means.mean(-1, keepdim=True)
    spread = variance.view(shape) + (means - group_mean).square()
    group_variance = spread.mean(-1, keepdim=True)
    return sign * group_mean.expand_as(means).flatten(1), group_variance.expand_as(means).flatten(1)


class _ConvolutionMaxima(torch.autograd.Function):
    """The convolution of relu(scale * maxima + shift): its 2x2 maxima, and its moments.

    Forward: maxima [sets, n, channels, height, width], scale and shift [sets, channels] (None for
    the first block, whose input are images), weight of a 3x3 convolution, whether moments are
    wanted, and how many images the CPU may have in work at once. Gives the maxima of the output
    [sets, n, filters, height // 2, width // 2], and its mean and variance in each set,
    [sets, filters], None if they are not wanted.
    """

    @staticmethod
    def forward(
        ctx: Any,
        maxima: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        weight: Tensor,
        moments: bool,
        most: int,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.pieces = _pieces(maxima, weight, most)
        ctx.outputs, ctx.places = [], []
        sets, n, _, height, width = maxima.shape
        result = _empty(maxima, (sets, n, len(weight), height // 2, width // 2))
        corners = _corners(maxima)
        # The places are relative to their window's first corner: 0, 1, width or width + 1.
        place_type = torch.uint8 if width < 255 else torch.int32
        means = maxima.new_empty(sets, ctx.pieces[-1].part + 1, len(weight))
        variances = torch.empty_like(means)
        for piece in ctx.pieces:
            y = _input(maxima, scale, shift, piece)
            x, places = _convolution_maxima(y, weight, result[piece.sets, piece.images])
            if moments:
                where = piece.sets, piece.part
                means[where], variances[where] = _moments(x.to(means.dtype))
            if any(ctx.needs_input_grad):
                ctx.outputs.append(x)
                ctx.places.append(places.sub_(corners).to(place_type))
            del y, x, places
        whole = _whole(means, variances, ctx.pieces, n) if moments else (None, None)
        ctx.save_for_backward(maxima, scale, shift, weight, whole[0])
        return result, *whole

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_maxima: Tensor, to_mean: Tensor | None, to_variance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        maxima, scale, shift, weight, mean = ctx.saved_tensors
        corners = _corners(maxima)
        line = None if mean is None else _moments_gradient(to_mean, to_variance, mean, maxima)
        to_weight = torch.zeros_like(weight)
        first = scale is None
        back: Any = None if first else _empty(maxima, maxima.shape)
        to_scale: Any = None if first else torch.zeros_like(scale)
        to_shift: Any = None if first else torch.zeros_like(shift)
        for piece in ctx.pieces:
            where = piece.sets, piece.images
            x, places = ctx.outputs.pop(0), ctx.places.pop(0).long().add_(corners)
            piece_line = None if line is None else [each[piece.sets] for each in line]
            # In the precision that autocast gave the convolution on the way forward.
            precision = x.dtype
            to_x = _to_output(to_maxima[where], x.to(maxima.dtype), places, piece_line)
            del x, places
            y = _input(maxima, scale, shift, piece)
            to_y, to_weight_here, _ = torch.ops.aten.convolution_backward(
                to_x.to(precision), y.flatten(0, 1).to(precision), weight.to(precision), None,
                [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [not first, True, False],
            )  # fmt: skip
            to_weight += to_weight_here
            del to_x
            if not first:
                to_y = torch.ops.aten.threshold_backward(to_y.view_as(y), y, 0)
                to_shift[piece.sets] += to_y.sum((1, 3, 4))
                to_scale[piece.sets] += (to_y * maxima[where]).sum((1, 3, 4))
                torch.mul(to_y, _channels(scale[piece.sets]), out=back[where])
            del y, to_y
        return back, to_scale, to_shift, to_weight, None, None


def _convolution_maxima(y: Tensor, weight: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """Write the maxima of a convolution to `result`; give it, shaped as y, and their places."""
    x = F.conv2d(y.flatten(0, 1), weight, padding=1)
    maxima, places = F.max_pool2d(x, 2, return_indices=True)
    result.copy_(maxima.view_as(result))
    return x.view(*y.shape[:2], *x.shape[1:]), places


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each set and channel, [sets, filters]."""
    mean = x.mean((1, 3, 4))
    return mean, (x - _channels(mean)).square_().mean((1, 3, 4))


def _to_output(
    to_maxima: Tensor, x: Tensor, places: Tensor, line: Sequence[Tensor] | None
) -> Tensor:
    """The gradient in a convolution's output x, images in one dimension.

    It comes through the maxima, at their places, and through the moments, if there is a line:
    slope and constant of `_moments_gradient`.
    """
    to_x: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        to_maxima.flatten(0, 1), x.flatten(0, 1),
        [2, 2], [2, 2], [0, 0], [1, 1], False, places,
    )  # fmt: skip
    if line is not None:
        slope, constant = map(_channels, line)
        to_x.view_as(x).addcmul_(x, slope).add_(constant)
    return to_x


def _whole(
    means: Tensor, variances: Tensor, pieces: Sequence["_Piece"], n: int
) -> tuple[Tensor, Tensor]:
    """Moments of sets of n images, [sets, filters], from those of parts, [sets, parts, filters]."""
    sizes = [piece.images.stop - piece.images.start for piece in pieces[: means.shape[1]]]
    shares = means.new_tensor(sizes)[:, None] / n
    mean = (shares * means).sum(1)
    return mean, (shares * (variances + (means - mean[:, None]).square())).sum(1)


def _moments_gradient(
    to_mean: Tensor | None, to_variance: Tensor | None, mean: Tensor, maxima: Tensor
) -> tuple[Tensor, Tensor]:
    """What flows back through the moments is slope * x + constant: both [sets, filters]."""
    pixels = maxima.shape[1] * maxima.shape[3] * maxima.shape[4]
    zeros = torch.zeros_like(mean)
    slope = (zeros if to_variance is None else to_variance) * 2 / pixels
    return slope, (zeros if to_mean is None else to_mean) / pixels - slope * mean


class _Piece(NamedTuple):
    """Images that are in work at once: whole sets, or a part of one."""

    sets: slice
    images: slice
    part: int
    """Which of its set; 0 if whole."""


def _pieces(maxima: Tensor, weight: Tensor, most: int) -> list[_Piece]:
    sets, n, _, height, width = maxima.shape
    image = len(weight) * height * width * weight.element_size()
    on_cpu = maxima.device.type == "cpu"
    at_once = max(1, _AT_ONCE["cpu" if on_cpu else "accelerator"] // image)
    if on_cpu:
        at_once = min(at_once, most)
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
    """What the convolution takes of a piece, [sets', n', channels, height, width]."""
    part = maxima[piece.sets, piece.images]
    if scale is None or shift is None:
        return part
    return _activated(part, scale[piece.sets], shift[piece.sets])


def _activated(maxima: Tensor, scale: Any, shift: Any) -> Tensor:
    return torch.addcmul(_channels(shift), maxima, _channels(scale)).relu_()


def _channels(values: Tensor) -> Tensor:
    """Values [sets, channels] beside tensors [sets, n, channels, height, width]."""
    return values[:, None, :, None, None]


def _corners(maxima: Tensor) -> Tensor:
    """The index of the first element of each window in its image, [height // 2, width // 2]."""
    height, width = maxima.shape[3:]
    rows = 2 * width * torch.arange(height // 2, device=maxima.device)
    return rows[:, None] + 2 * torch.arange(width // 2, device=maxima.device)


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """[sets, n, channels, height, width], channels last in memory."""
    sets, n, channels, height, width = shape
    return like.new_empty(sets, n, height, width, channels).movedim(-1, 2)
