"""Whether each block of attention became one fused kernel, and why not where it did not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from condic.engines.builder import Layer
from condic.engines.graphs import Blocks

_FUSED = re.compile(r"mha|flash_?attn|flash_?attention|fused_?attention", re.IGNORECASE)
"""In the names of TensorRT's kernels for attention: `_gemm_mha_v2`, `fmha_v2_flash_attention_fp16_...`."""
_OPAQUE = ("foreignnode", "myelin")
"""Layers that hold kernels which TensorRT does not list."""


@dataclass(frozen=True)
class Verdict:
    """What became of a block: `unknown` where TensorRT does not tell."""

    fused: Literal["fused", "not fused", "unknown"]
    reason: str


def verdicts(blocks: Blocks, layers: Sequence[Layer], source: Literal["engine", "network"]) -> list[Verdict]:
    """One verdict per block of a graph from `for_tensorrt`, in the graph's order.

    Blocks are all whole or all apart. `layers` and `source` are a `Plan`'s.
    """
    if blocks.whole:  # an Attention that the builder may not take apart: without a kernel for it, it fails
        reason = "one Attention node, for which TensorRT has a kernel of its own"
        return [Verdict("fused", reason)] * blocks.whole
    if source == "network":
        reason = "MatMul, Softmax and MatMul; whether TensorRT joins them is known only where the engine can run"
        return [Verdict("unknown", reason)] * blocks.apart
    return [_verdict(k, layers) for k in range(blocks.apart)]


def _verdict(block: int, layers: Sequence[Layer]) -> Verdict:
    """Of a block that the graph has in parts, from the engine's layers that come from these parts."""
    part = re.compile(rf"\battention_{block}\.(scores|softmax|values)\b")
    mine = [x for x in layers if part.search(x.name) or part.search(x.origin)]
    fused = [x for x in mine if _FUSED.search(x.name) or _FUSED.search(x.origin)]
    if fused:
        return Verdict("fused", f"the kernel {fused[0].name}")
    if not mine or any(x.name.lower().lstrip("{").startswith(_OPAQUE) or x.kind.lower() in _OPAQUE for x in mine):
        reason = "inside a layer whose kernels this TensorRT does not list; a profile shows them (names with mha)"
        return Verdict("unknown", reason)
    types = "/".join(sorted({x.precision for x in mine if x.precision}))
    names = ", ".join(f"{x.name} ({x.kind})" for x in mine[:4])
    return Verdict("not fused", f"{len(mine)} layers in {types}: {names}{', ...' if len(mine) > 4 else ''}")
