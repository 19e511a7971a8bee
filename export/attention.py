"""How ONNX graphs express windowed attention (`condic.models.blocks.attend_in_windows`).

Windows are cut, and joined again, by reshapes, which move nothing, and one transpose. Reshapes that copy one side (0)
and find out another (-1) leave no arithmetic on its dynamic shape in a graph. Keys that are cut already get another
transpose, which libraries make part of the MatMul behind it. Arguments are onnxscript values: query, key, value
[1, H, W, C], position [heads, n, n], n being the pixels of a window, and optionally mask [1, H, W, 1]; the result is
[1, H, W, C].
"""

from __future__ import annotations

import math
from typing import Any

from onnxscript import opset20, opset23

_CUT = [0, 2, 4, 1, 3, 5]
"""Of rows of windows, rows in a window, columns of windows, columns in a window, heads, channels."""
_JOINED = [0, 3, 1, 4, 2, 5]
"""The other way round."""


def attention_decomposed(query: Any, key: Any, value: Any, position: Any, mask: Any = None) -> Any:
    """MatMul, Softmax and MatMul: opset 20, for every backend."""
    heads, pixels, size = _sizes(query, position)
    windows = [_windows(x, pixels, heads, size) for x in (query, key, value)]
    q, k, v = (_as(x, [-1, heads, pixels, size]) for x in windows)
    scores = opset20.MatMul(q, opset20.Transpose(k, perm=[0, 1, 3, 2]))
    scores = opset20.Mul(scores, opset20.Constant(value_float=size**-0.5))
    scores = opset20.Add(scores, position)
    if mask is not None:
        scores = opset20.Add(scores, _as(_windows(mask, pixels, 1, 1), [-1, 1, 1, pixels]))
    weights = opset20.Softmax(scores, axis=-1)
    return _joined(opset20.MatMul(weights, v), windows[0], heads * size)


def attention_fused(query: Any, key: Any, value: Any, position: Any, mask: Any = None) -> Any:
    """One `Attention` node: opset 23, for engines that have a fused kernel for it."""
    heads, pixels, size = _sizes(query, position)
    windows = [_windows(x, pixels, heads, size) for x in (query, key, value)]
    q, k, v = (_as(x, [-1, heads, pixels, size]) for x in windows)
    batch_axis: Any = opset23.Constant(value_ints=[0])
    bias = opset23.Unsqueeze(position, batch_axis)
    if mask is not None:
        bias = opset23.Add(bias, _as(_windows(mask, pixels, 1, 1), [-1, 1, 1, pixels]))
    attended, *_ = opset23.Attention(q, k, v, bias, scale=size**-0.5)
    return _joined(attended, windows[0], heads * size)


def _sizes(query: Any, position: Any) -> tuple[int, int, int]:
    """Heads, pixels of a window, channels of a head."""
    heads, pixels, _ = position.shape
    return heads, pixels, query.shape[-1] // heads


def _windows(x: Any, pixels: int, heads: int, size: int) -> Any:
    """[1, H, W, heads * size] to [H / side, W / side, heads, side, side, size]."""
    side = math.isqrt(pixels)
    x = _as(_as(x, [-1, side, 0, heads * size]), [0, 0, -1, side, heads, size])
    return opset20.Transpose(x, perm=_CUT)


def _joined(x: Any, windows: Any, channels: int) -> Any:
    """[n, heads, pixels, size], the windows being those of `windows`, to [1, H, W, channels]."""
    x = opset20.Transpose(opset20.Reshape(x, opset20.Shape(windows)), perm=_JOINED)
    return _as(_as(x, [0, 0, -1, channels]), [1, -1, 0, channels])


def _as(x: Any, shape: list[int]) -> Any:
    constant: Any = opset20.Constant(value_ints=shape)
    return opset20.Reshape(x, constant)
