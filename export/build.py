"""Builds a verified bundle from what a codec says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from condic.errors import InputError
from condic.export.known_answers import known_answer
from condic.export.onnx_graphs import example_inputs, export_graph
from condic.export.precision import store_exact, store_float, to_half
from condic.export.receptive_field import halo
from condic.export.source import SourceCodec, SourceGraph
from condic.models.exact import ExactConv
from condic.runtime.bundle import Bundle, check_bundle
from condic.runtime.consistency import CODER_BITS
from condic.runtime.manifest import Graph, Latent, Manifest, Step

_SIZES = ((1, 2), (2, 1))
"""Sizes, in windows of the alignment, on which a graph is compared with PyTorch."""
_LARGEST_ERROR = {"float": 1e-3, "half": 5e-3}
"""Accepted difference between PyTorch and ONNX Runtime, relative to the largest output. Half precision has 1e-3 where
the processor computes in it; on others ONNX Runtime computes such graphs in float32."""
_SMALLEST_RANGE = 1e-3
_CALIBRATION = ("mixture", "peak")
"""Buffers that calibration fills: tables and integers follow from them."""


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
    source.model.eval()
    _check_source(source)
    tables = dict(source.tables)
    graphs, files = [], {}
    for graph in source.graphs:
        begin(f"exporting {graph.role}")
        answer = None
        largest_sum = None
        if graph.exact:
            bias = torch.from_numpy(tables[f"quality.{graph.role}"])
            arrays, answer, largest_sum = known_answer(graph, bias[int(bias.abs().amax(dim=1).argmax())])
            tables |= {f"known.{graph.role}.{name}": value for name, value in arrays.items()}
        as_half = half and graph.precision == "float"
        data = _stored(graph, as_half)
        error = _verify(graph, data, half=as_half)
        count = sum(p.numel() for p in graph.network.parameters())
        graphs.append(
            Graph(
                role=graph.role,
                file=f"{graph.role}.onnx",
                precision=graph.precision,
                inputs=graph.inputs,
                outputs=graph.outputs,
                parameters=count,
                halo=halo(graph) if graph.halo is None else graph.halo,
                known_answer=answer,
            )
        )
        files[graph.role] = data
        kind = "fp16" if as_half else "fp32" if graph.precision == "float" else graph.precision
        report(Row(graph.role, kind, count, len(data), error, largest_sum))
    manifest = Manifest(
        codec=source.name,
        preset=source.preset,
        bundle_id=_bundle_id(source.model, tables, _schedule(source)),
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
    bundle = Bundle(manifest, tables, files, "the exported bundle")
    check_bundle(bundle)
    return bundle


def _check_source(source: SourceCodec) -> None:
    for name, parameter in source.model.named_parameters():
        _check_half(name, parameter)
    for path, module in source.model.named_modules():
        for tensor in _constants(module):
            _check_half(f"a buffer of {path or 'the model'}", tensor)
    held = {id(x) for module in source.model.modules() for x in _weights(module)}
    for graph in source.graphs:
        if any(id(x) not in held for module in graph.network.modules() for x in _weights(module)):
            raise InputError(
                f"graph {graph.role} has weights that are not its codec's `model`'s, so no id would tell them"
            )
        if graph.alignment != source.alignment:
            raise InputError(f"graph {graph.role} has alignment {graph.alignment}, its codec {source.alignment}")


def _check_half(name: str, tensor: torch.Tensor) -> None:
    if not torch.equal(tensor, tensor.half().float()):
        raise InputError(
            f"{name} has more digits than half precision, in which bundles store weights; round the model first: "
            "model.half().float()"
        )


def _stored(graph: SourceGraph, half: bool) -> bytes:
    """The ONNX file of a graph."""
    onnx_model = export_graph(graph, fused_attention=half)
    if graph.exact:
        store_exact(onnx_model)
    elif half:
        to_half(onnx_model)
    else:
        store_float(onnx_model)
    onnx.checker.check_model(onnx_model)
    data: bytes = onnx_model.SerializeToString(deterministic=True)
    return data


def _schedule(source: SourceCodec) -> str:
    """Schedules, step lists and options as canonical text.

    What bundles did not have at first stays out where it says nothing, so that their ids stay what they were; so do the
    guard's deltas, which only tell the encoder what to note.
    """
    deltas = ("levels", "deltas")
    later = {"contiguous": False, "residual": None, "residual_inputs": (), "guard": None}

    def canonical(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not (k in later and v == later[k]) and k not in deltas}
            return {k: canonical(v) for k, v in kept.items()}
        return [canonical(v) for v in value] if isinstance(value, (list, tuple)) else value

    parts: list[Sequence[Latent | Step]] = [source.latents, source.encode, source.decode, source.preview]
    parts += [source.large_preview] if source.large_preview else []
    text = json.dumps([[canonical(asdict(x)) for x in part] for part in parts], sort_keys=True)
    return text + (json.dumps(dict(source.options), sort_keys=True) if source.options else "")


def _bundle_id(model: nn.Module, tables: Mapping[str, np.ndarray], schedule: str) -> str:
    """SHA-256 over parameters (as float16; frozen ones as integers), tables, schedule and step lists.

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
            parts, dtype = [x.detach() for x in _weights(module)], "<f2"
        for part in parts:
            digest.update(name.encode() + part.numpy().astype(dtype).tobytes())
    for name in sorted(tables):
        if not name.startswith("known."):
            digest.update(name.encode() + np.ascontiguousarray(tables[name]).tobytes())
    return digest.hexdigest()


def _weights(module: nn.Module) -> list[torch.Tensor]:
    """What a module computes with, without those that it is made of."""
    return [*module.parameters(recurse=False), *_constants(module)]


def _constants(module: nn.Module) -> list[torch.Tensor]:
    """What a module keeps beside its parameters, such as a normalisation's statistics."""
    buffers = module.named_buffers(recurse=False)
    kept = module.state_dict(keep_vars=True)
    return [x for name, x in buffers if name in kept and x.is_floating_point() and name not in _CALIBRATION]


@torch.no_grad()
def _verify(source: SourceGraph, data: bytes, *, half: bool) -> float:
    """The largest difference from PyTorch on random inputs, relative to the range. Raises InputError."""
    inner = _half_tensors(data) if half else []
    outputs = [x.name for x in source.outputs]
    worst, session = 0.0, _session(data, inner)
    for seed, (rows, columns) in enumerate(_SIZES):
        inputs = example_inputs(source, rows, columns, seed)
        expected = source.network(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        _check_shapes(source, expected, rows, columns)
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


def _check_shapes(source: SourceGraph, given: Sequence[torch.Tensor], rows: int, columns: int) -> None:
    shapes = [tuple(x.shape) for x in given]
    stated = [
        (1, x.channels, *(side * source.alignment // x.stride if x.stride else 1 for side in (rows, columns)))
        for x in source.outputs
    ]
    if shapes != stated:
        size = f"{rows * source.alignment}x{columns * source.alignment}"
        raise InputError(f"graph {source.role}: an image of {size} gives {shapes}, its outputs say {stated}")


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
