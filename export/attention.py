"""How ONNX graphs express windowed attention (`condic.models.blocks.attend_in_windows`).

Windows are cut and joined by SpaceToDepth and DepthToSpace, so that a graph holds no arithmetic on its dynamic shape.
Arguments are onnxscript values: query, key, value [B, H, W, C], position [heads, 64, 64]; the result is [B, H, W, C].
"""

from __future__ import annotations

from typing import Any

from onnxscript import opset20, opset23

from condic.models.blocks import HEAD, WINDOW

_TOKENS = WINDOW * WINDOW


def attention_decomposed(query: Any, key: Any, value: Any, position: Any) -> Any:
    """MatMul, Softmax and MatMul: opset 20, for every backend."""
    heads = position.shape[0]
    windows = _windows(query)
    q, k = _heads(windows, heads, [0, 2, 1, 3]), _heads(_windows(key), heads, [0, 2, 3, 1])
    v = _heads(_windows(value), heads, [0, 2, 1, 3])
    scores = opset20.Mul(opset20.MatMul(q, k), opset20.Constant(value_float=HEAD**-0.5))
    weights = opset20.Softmax(opset20.Add(scores, position), axis=-1)
    return _from_heads(opset20.MatMul(weights, v), windows)


def attention_fused(query: Any, key: Any, value: Any, position: Any) -> Any:
    """One `Attention` node: opset 23, for engines that have a fused kernel for it."""
    heads = position.shape[0]
    windows = _windows(query)
    q, k, v = (_heads(x, heads, [0, 2, 1, 3]) for x in (windows, _windows(key), _windows(value)))
    batch_axis: Any = opset23.Constant(value_ints=[0])
    mask = opset23.Unsqueeze(position, batch_axis)
    attended, *_ = opset23.Attention(q, k, v, mask, scale=HEAD**-0.5)
    return _from_heads(attended, windows)


def _windows(x: Any) -> Any:
    """[B, H, W, C] to [B, H/8, W/8, 64 * C], pixels before channels."""
    x = opset20.SpaceToDepth(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=WINDOW)
    return opset20.Transpose(x, perm=[0, 2, 3, 1])


def _heads(x: Any, heads: int, perm: list[int]) -> Any:
    shape: Any = opset20.Constant(value_ints=[-1, _TOKENS, heads, HEAD])
    return opset20.Transpose(opset20.Reshape(x, shape), perm=perm)


def _from_heads(x: Any, windows: Any) -> Any:
    x = opset20.Reshape(opset20.Transpose(x, perm=[0, 2, 1, 3]), opset20.Shape(windows))
    x = opset20.DepthToSpace(opset20.Transpose(x, perm=[0, 3, 1, 2]), blocksize=WINDOW, mode="DCR")
    return opset20.Transpose(x, perm=[0, 2, 3, 1])
