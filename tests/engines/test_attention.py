"""Each block of attention is told fused, not fused or unknown, from what TensorRT says of its layers."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")

from condic.engines.attention import verdicts
from condic.engines.builder import Layer
from condic.engines.graphs import Blocks

APART = Blocks(whole=0, apart=1)
PARTS = "[ONNX Layer: attention_{0}.scores] [ONNX Layer: attention_{0}.softmax] [ONNX Layer: attention_{0}.values]"


def test_an_attention_node_is_fused_because_tensorrt_would_refuse_it_otherwise():
    found = verdicts(Blocks(whole=2, apart=0), [], "network")
    assert [x.fused for x in found] == ["fused", "fused"]


def test_before_the_engine_is_read_nobody_knows():
    (verdict,) = verdicts(APART, [Layer("attention_0.softmax", "softmax", "fp16")], "network")
    assert verdict.fused == "unknown"
    assert "known only where the engine can run" in verdict.reason


@pytest.mark.parametrize("name", ["_gemm_mha_v2_myl0_7", "fmha_v2_flash_attention_fp16_64_32_sm80", "__myl_FMHA"])
def test_a_kernel_for_attention_is_recognised_by_its_name(name: str):
    layers = [Layer("conv", "gemm", "fp16", "[ONNX Layer: conv]"), Layer(name, "kgen", "fp16", PARTS.format(0))]
    (verdict,) = verdicts(APART, layers, "engine")
    assert verdict.fused == "fused"
    assert name in verdict.reason


def test_several_layers_are_not_one_kernel_and_are_named():
    layers = [
        Layer("a", "gemm", "fp16", "[ONNX Layer: attention_0.scores]"),
        Layer("b", "kgen", "fp32", "[ONNX Layer: attention_0.softmax]"),
        Layer("c", "gemm", "fp16", "[ONNX Layer: attention_0.values]"),
        Layer("_gemm_mha_v2", "kgen", "fp16", PARTS.format(1)),
    ]
    first, second = verdicts(Blocks(0, 2), layers, "engine")
    assert (first.fused, first.reason) == ("not fused", "3 layers in fp16/fp32: a (gemm), b (kgen), c (gemm)")
    assert second.fused == "fused"


def test_block_1_is_not_mistaken_for_block_11():
    layers = [Layer("_gemm_mha_v2", "kgen", "fp16", PARTS.format(11)), Layer("x", "kgen", "fp16", PARTS.format(1))]
    found = verdicts(Blocks(0, 12), layers, "engine")
    assert [found[1].fused, found[11].fused] == ["not fused", "fused"]


@pytest.mark.parametrize(
    "layer",
    [
        Layer("{ForeignNode[attention_0.scores...attention_0.values]}", "Myelin", "fp16"),
        Layer("{ForeignNode[a...b]}", "", ""),
    ],
)
def test_inside_a_layer_that_lists_no_kernels_nobody_knows(layer: Layer):
    (verdict,) = verdicts(APART, [layer], "engine")
    assert verdict.fused == "unknown"
    assert "does not list" in verdict.reason
