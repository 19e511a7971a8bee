"""Builds a verified bundle from a frozen model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import onnx
import torch

from condic.errors import InputError
from condic.export import codec_graphs
from condic.export.codec_graphs import SourceGraph
from condic.export.known_answers import known_answer
from condic.export.onnx_graphs import example_inputs, export_graph
from condic.export.precision import store_exact, store_float, to_half
from condic.export.receptive_field import halo
from condic.models.dcic_sgp import ALIGNMENT, DcicSgp
from condic.models.entropy import SCALES, scale_table
from condic.models.exact import ExactConv
from condic.runtime.bundle import Bundle, check_bundle
from condic.runtime.consistency import CODER_BITS
from condic.runtime.manifest import Graph, Manifest

_SIZES = ((1, 2), (2, 1))
"""Sizes, in windows of 128 pixels, on which a graph is compared with PyTorch."""
_LARGEST_ERROR = {"float": 1e-3, "half": 5e-2}
"""Accepted difference between PyTorch and ONNX Runtime, relative to the largest output."""


@dataclass(frozen=True)
class Row:
    """A line of the closing table. `error` is the largest difference from PyTorch relative to the largest output."""

    role: str
    precision: str
    parameters: int
    bytes: int
    error: float
    largest_sum: float | None


def build_bundle(model: DcicSgp, provenance: Mapping[str, str], *, half: bool, report: Callable[[Row], None]) -> Bundle:
    """Freezes a calibrated model, exports and verifies every graph; `report` is called after each.

    Raises InputError if a graph does not agree with PyTorch: bit for bit if exact, within a tolerance otherwise.
    """
    model.eval()
    halos = {source.role: halo(source) for source in codec_graphs.source_graphs(model)}
    with torch.no_grad():
        model.freeze()
    tables = codec_graphs.tables(model)
    graphs, files = [], {}
    for source in codec_graphs.source_graphs(model):
        answer = None
        largest_sum = None
        if source.exact:
            bias = torch.from_numpy(tables[f"quality.{source.role}"])
            arrays, answer, largest_sum = known_answer(source, bias[int(bias.abs().amax(dim=1).argmax())])
            tables |= {f"known.{source.role}.{name}": value for name, value in arrays.items()}
        onnx_model = export_graph(source, fused_attention=half and not source.exact)
        if source.exact:
            store_exact(onnx_model)
        elif half:
            to_half(onnx_model)
        else:
            store_float(onnx_model)
        onnx.checker.check_model(onnx_model)
        data = onnx_model.SerializeToString(deterministic=True)
        error = _verify(source, data, half=half)
        count = sum(p.numel() for p in source.network.parameters())
        precision: Literal["exact", "float"] = "exact" if source.exact else "float"
        graphs.append(
            Graph(
                role=source.role,
                file=f"{source.role}.onnx",
                precision=precision,
                inputs=source.inputs,
                outputs=source.outputs,
                parameters=count,
                halo=halos[source.role],
                known_answer=answer,
            )
        )
        files[source.role] = data
        report(
            Row(
                source.role,
                "exact" if source.exact else "fp16" if half else "fp32",
                count,
                len(data),
                error,
                largest_sum,
            )
        )
    latents = codec_graphs.latents(model)
    lists = codec_graphs.ENCODE, codec_graphs.DECODE, codec_graphs.PREVIEW
    schedule = json.dumps([[asdict(x) for x in part] for part in (latents, *lists)], sort_keys=True)
    manifest = Manifest(
        codec="dcic-sgp",
        preset=model.preset_name,
        bundle_id=_bundle_id(model, tables, schedule),
        alignment=ALIGNMENT,
        scales=SCALES,
        scale_table=tuple(scale_table().tolist()),
        coder_bits=CODER_BITS,
        precision="fp16" if half else "fp32",
        graphs=tuple(graphs),
        latents=latents,
        encode=codec_graphs.ENCODE,
        decode=codec_graphs.DECODE,
        preview=codec_graphs.PREVIEW,
        provenance=provenance,
    )
    bundle = Bundle(manifest, tables, files, "the exported bundle")
    check_bundle(bundle)
    return bundle


def _bundle_id(model: DcicSgp, tables: Mapping[str, np.ndarray], schedule: str) -> str:
    """SHA-256 over parameters (trained ones as float16, frozen ones as integers), tables, schedule and step lists.

    Precision, opset and file layout stay out, so that all exports of the same weights read each other's files.
    """
    digest = hashlib.sha256(schedule.encode())
    exact = {id(m): name for name, m in model.named_modules() if isinstance(m, ExactConv)}
    for name, module in sorted(model.named_modules()):
        if id(module) in exact:
            parts = [module.int_weight, module.int_bias, module.scale, torch.tensor([module.low, module.high])]
            dtype = "<f8"
        elif any(name.startswith(f"{path}.") for path in exact.values()):
            continue
        else:
            parts, dtype = [p.detach() for p in module.parameters(recurse=False)], "<f2"
        for part in parts:
            digest.update(name.encode() + part.numpy().astype(dtype).tobytes())
    for name in sorted(tables):
        if not name.startswith("known."):
            digest.update(name.encode() + np.ascontiguousarray(tables[name]).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _verify(source: SourceGraph, data: bytes, *, half: bool) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, (rows, columns) in enumerate(_SIZES):
        inputs = example_inputs(source, rows, columns, seed)
        expected = source.network(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        names = [x.name for x in source.inputs]
        outputs = session.run(
            [x.name for x in source.outputs], dict(zip(names, (x.numpy() for x in inputs), strict=True))
        )
        for want, got in zip(expected, outputs, strict=True):
            difference = float(np.abs(want.numpy() - got).max()) / max(1.0, float(want.abs().max()))
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    limit = 0.0 if source.exact else _LARGEST_ERROR["half" if half else "float"]
    if worst > limit:
        raise InputError(f"graph {source.role} differs from PyTorch by {worst:.2g} of its range (limit {limit:.2g})")
    return worst
