"""Builds a verified bundle from what a codec says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from condic.errors import InputError, first_line
from condic.export.checks import check_source, try_network
from condic.export.identity import bundle_id
from condic.export.known_answers import known_answer
from condic.export.onnx_graphs import export_graph
from condic.export.precision import store_exact, store_float, to_half
from condic.export.receptive_field import halo
from condic.export.source import SourceCodec, SourceGraph
from condic.runtime.bundle import Bundle, check_bundle
from condic.runtime.consistency import CODER_BITS
from condic.runtime.manifest import Graph, Manifest

SIZES = ((1, 1), (1, 2), (3, 1))
"""Sizes, in windows of the alignment, on which a graph is compared with PyTorch. They are not those of the export, so
that a branch which depends on the size shows."""
_LARGEST_ERROR = {"float": 1e-3, "half": 5e-3}
"""Accepted difference between PyTorch and ONNX Runtime, relative to the largest output. Half precision has 1e-3 where
the processor computes in it; on others ONNX Runtime computes such graphs in float32."""
_SMALLEST_RANGE = 1e-3


@dataclass(frozen=True)
class Row:
    """A line of the closing table. `error` is the largest difference from PyTorch relative to the largest output."""

    role: str
    precision: str
    parameters: int
    bytes: int
    error: float
    largest_sum: float | None


def build_bundle(
    source: SourceCodec,
    provenance: Mapping[str, str],
    *,
    half: bool = False,
    begin: Callable[[str], None] = lambda _: None,
    report: Callable[[Row], None] = lambda _: None,
) -> Bundle:
    """Exports and verifies every graph. What is guarded is still to be measured (`guard.guarded`).

    `provenance` says where the weights are from and under which licence. `half`: float graphs in half precision, with
    fused attention. `begin` is told what comes next, before each graph; `report` is called after it.

    Raises InputError if a graph does not agree with PyTorch: bit for bit if exact, within a tolerance otherwise; and
    BundleError if step lists, schedules and tables do not fit together.
    """
    for network in (source.model, *(graph.network for graph in source.graphs)):
        network.eval()
    check_source(source)
    for name, value in provenance.items():
        if not isinstance(value, str):
            raise InputError(f"provenance: {name} is a {type(value).__name__}; manifests have strings")
    graphs, largest_sums, unit = [], {}, source.alignment
    tables = dict(source.tables)
    for graph in source.graphs:
        begin(f"measuring {graph.role}")
        answer = None
        if graph.exact:
            bias = torch.from_numpy(tables[f"quality.{graph.role}"].astype(np.int64))
            arrays, answer, largest_sums[graph.role] = known_answer(
                graph, unit, bias[int(bias.abs().amax(dim=1).argmax())]
            )
            tables |= {f"known.{graph.role}.{name}": value for name, value in arrays.items()}
        graphs.append(
            Graph(
                role=graph.role,
                file=f"{graph.role}.onnx",
                precision=graph.precision,
                inputs=graph.inputs,
                outputs=graph.outputs,
                parameters=sum(p.numel() for p in graph.network.parameters()),
                halo=halo(graph, unit) if graph.halo is None else graph.halo,
                known_answer=answer,
            )
        )
    manifest = Manifest(
        codec=source.name,
        preset=source.preset,
        bundle_id=bundle_id(source, tables),
        alignment=source.alignment,
        scales=len(source.scale_table),
        scale_table=source.scale_table,
        coder_bits=CODER_BITS,
        precision="fp16" if half else "fp32",
        graphs=tuple(graphs),
        latents=source.latents,
        encode=source.encode,
        decode=source.decode,
        preview=source.preview,
        large_preview=source.large_preview,
        provenance=dict(provenance) | dict(source.options),
    )
    files: dict[str, bytes] = {}
    bundle = Bundle(manifest, tables, files, f"codec {source.name}")
    check_bundle(bundle)  # what does not fit together is told before the long part
    for graph, stated in zip(source.graphs, graphs, strict=True):
        begin(f"exporting {graph.role}")
        as_half = half and graph.precision == "float"
        data = _stored(graph, unit, as_half)
        error = _verify(graph, unit, data, half=as_half)
        files[graph.role] = data
        kind = "fp16" if as_half else "fp32" if graph.precision == "float" else graph.precision
        report(Row(graph.role, kind, stated.parameters, len(data), error, largest_sums.get(graph.role)))
    return bundle


def _stored(graph: SourceGraph, alignment: int, half: bool) -> bytes:
    """The ONNX file of a graph."""
    onnx_model = export_graph(graph, alignment, fused_attention=half)
    if graph.exact:
        store_exact(onnx_model)
    elif half:
        to_half(onnx_model)
    else:
        store_float(onnx_model)
    onnx.checker.check_model(onnx_model)
    data: bytes = onnx_model.SerializeToString(deterministic=True)
    return data


def _verify(source: SourceGraph, alignment: int, data: bytes, *, half: bool) -> float:
    """The largest difference from PyTorch on random inputs, relative to the range. Raises InputError."""
    inner = _half_tensors(data) if half else []
    outputs = [x.name for x in source.outputs]
    try:
        worst, session = 0.0, _session(data, inner)
    except Exception as error:  # errors of ONNX Runtime's own
        advice = "; export without --fp16" if half else ""
        raise InputError(f"graph {source.role}: ONNX Runtime does not take it ({first_line(error)}){advice}") from error
    for seed, (rows, columns) in enumerate(SIZES):
        inputs, expected = try_network(source, alignment, rows, columns, seed)
        named = {x.name: value.numpy() for x, value in zip(source.inputs, inputs, strict=True)}
        found = dict(zip([*outputs, *inner], session.run([*outputs, *inner], named), strict=True))
        for name in inner:
            if not np.isfinite(found[name]).all():
                raise InputError(f"graph {source.role}: tensor {name} is beyond half precision; export without --fp16")
        for want, name in zip(expected, outputs, strict=True):
            scale = max(_SMALLEST_RANGE, float(want.abs().max()))
            difference = float(np.abs(want.numpy() - found[name]).max()) / scale
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    limit = 0.0 if source.exact else _LARGEST_ERROR["half" if half else "float"]
    if worst > limit:
        raise InputError(f"graph {source.role} differs from PyTorch by {worst:.2g} of its range (limit {limit:.2g})")
    return worst


def _half_tensors(data: bytes) -> list[str]:
    """Everything that a graph computes in float16."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    return [x.name for x in model.graph.value_info if x.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16]


def _session(data: bytes, inner: Sequence[str]) -> Any:
    """A session that gives tensors inside the graph, too, as they are in the precision that the graph says."""
    import onnxruntime

    if inner:
        model = onnx.load_from_string(data)
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, None) for name in inner
        )
        data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
