"""How ONNX graphs express windowed attention (`condic.models.blocks.attend_in_windows`).

Windows are cut and joined by SpaceToDepth and DepthToSpace, so that a graph holds no arithmetic on its dynamic shape.
Arguments are onnxscript values: query, key, value [B, H, W, C], position [heads, n, n], n being the pixels of a window,
and optionally mask [B, H, W, 1]; the result is [B, H, W, C].
"""

from __future__ import annotations

import math
from typing import Any

from onnxscript import opset20, opset23


def attention_decomposed(query: Any, key: Any, value: Any, position: Any, mask: Any = None) -> Any:
    """MatMul, Softmax and MatMul: opset 20, for every backend."""
    heads, pixels, size = _sizes(query, position)
    windows = _windows(query, pixels)
    q = _heads(windows, pixels, heads, size, [0, 2, 1, 3])
    k = _heads(_windows(key, pixels), pixels, heads, size, [0, 2, 3, 1])
    v = _heads(_windows(value, pixels), pixels, heads, size, [0, 2, 1, 3])
    scores = opset20.Mul(opset20.MatMul(q, k), opset20.Constant(value_float=size**-0.5))
    scores = opset20.Add(scores, position)
    if mask is not None:
        scores = opset20.Add(scores, _heads(_windows(mask, pixels), pixels, 1, 1, [0, 2, 3, 1]))
    weights = opset20.Softmax(scores, axis=-1)
    return _from_heads(opset20.MatMul(weights, v), windows, pixels)


def attention_fused(query: Any, key: Any, value: Any, position: Any, mask: Any = None) -> Any:
    """One `Attention` node: opset 23, for engines that have a fused kernel for it."""
    heads, pixels, size = _sizes(query, position)
    windows = _windows(query, pixels)
    q, k, v = (
        _heads(x, pixels, heads, size, [0, 2, 1, 3]) for x in (windows, _windows(key, pixels), _windows(value, pixels))
    )
    batch_axis: Any = opset23.Constant(value_ints=[0])
    bias = opset23.Unsqueeze(position, batch_axis)
    if mask is not None:
        bias = opset23.Add(bias, _heads(_windows(mask, pixels), pixels, 1, 1, [0, 2, 3, 1]))
    attended, *_ = opset23.Attention(q, k, v, bias, scale=size**-0.5)
    return _from_heads(attended, windows, pixels)


def _sizes(query: Any, position: Any) -> tuple[int, int, int]:
    """Heads, pixels of a window, channels of a head."""
    heads, pixels, _ = position.shape
    return heads, pixels, query.shape[-1] // heads


def _windows(x: Any, pixels: int) -> Any:
    """[B, H, W, C] to [B, H/side, W/side, pixels * C], pixels before channels."""
    x = opset20.SpaceToDepth(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=math.isqrt(pixels))
    return opset20.Transpose(x, perm=[0, 2, 3, 1])


def _heads(x: Any, pixels: int, heads: int, size: int, perm: list[int]) -> Any:
    shape: Any = opset20.Constant(value_ints=[-1, pixels, heads, size])
    return opset20.Transpose(opset20.Reshape(x, shape), perm=perm)


def _from_heads(x: Any, windows: Any, pixels: int) -> Any:
    x = opset20.Reshape(opset20.Transpose(x, perm=[0, 2, 1, 3]), opset20.Shape(windows))
    x = opset20.DepthToSpace(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=math.isqrt(pixels), mode="DCR")
    return opset20.Transpose(x, perm=[0, 2, 3, 1])
