"""How far backends are apart on the entropy path, measured: from this follows what guarded rounding must guard."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from condic.errors import InputError
from condic.export.torch_backend import TorchBackend
from condic.runtime.backends import BackendOptions
from condic.runtime.bundle import Bundle, check_bundle
from condic.runtime.codec import Codec
from condic.runtime.guard import LARGEST_DELTA, Codes, GuardWriter, Rounding
from condic.runtime.manifest import Deltas, Guard, Manifest, is_first_table, is_quality_table

R = TypeVar("R", bound=Rounding)

SAFETY = 4
"""Deltas are this multiple of the largest difference."""
SIDE = 512
"""Height in pixels of the images that backends are compared on, which are twice as wide."""
_BLOCKS = (8, 32)
"""Sides in pixels. Backends differ several times as much on flat saturated colours as on photographs."""
_SMALLEST = 1e-6
_LEVELS = (0, 16, 32, 48, 63)
_BACKENDS = {
    "ort, 1 thread, as written": ("ort", BackendOptions(threads=1, optimise=False), "onnxruntime"),
    "ort, 1 thread": ("ort", BackendOptions(threads=1), "onnxruntime"),
    "ort, 2 threads": ("ort", BackendOptions(threads=2), "onnxruntime"),
    "torch": ("torch", BackendOptions(), "torch"),
    "openvino": ("openvino", BackendOptions(), "openvino"),
}


class Record(GuardWriter):
    """An encoder's rounding that keeps what it rounded, and to what."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[npt.NDArray[np.floating]] = []
        self.codes: list[Codes] = []

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """See `Rounding`."""
        self.values.append(values.copy())
        self.codes.append(super().round(values, delta))
        return self.codes[-1]


class Replay:
    """Rounds as the record says, whatever it is given, and keeps how far that was from what was recorded."""

    def __init__(self, record: Record) -> None:
        self._record, self.differences = record, list[float]()

    def round(self, values: npt.NDArray[np.floating], delta: float) -> Codes:
        """See `Rounding`."""
        k = len(self.differences)
        self.differences.append(float(np.abs(values - self._record.values[k]).max(initial=0.0)))
        return self._record.codes[k]


def guarded(bundle: Bundle, begin: Callable[[str], None] = lambda _: None, *, side: int = SIDE) -> Bundle:
    """The bundle with deltas measured on random images; `begin` is told of each backend before it runs.

    `side` is how high the images are at least, in pixels: on small ones there are too few values to meet the rare large
    differences. Raises InputError where backends are too far apart.
    """
    padded, _ = bundle.manifest.padded(side, side)
    differences = largest_differences(bundle, random_images(padded), begin)
    latents = tuple(replace(x, guard=_measured(x.guard, differences[x.name])) if x.guard else x
                    for x in bundle.manifest.latents)  # fmt: skip
    bundle = replace(bundle, manifest=replace(bundle.manifest, latents=latents))
    check_bundle(bundle)
    return bundle


def largest_differences(
    bundle: Bundle,
    images: list[npt.NDArray[np.uint8]],
    begin: Callable[[str], None],
    levels: tuple[int, ...] = _LEVELS,
) -> dict[str, dict[int, Deltas]]:
    """Per guarded latent and level, how far the numbers of any installed backend are from those of the first one.

    A level whose tables are those of another one stands for both.

    Each decodes the first one's files and is led back to its integers, so that differences do not add up.
    """
    (name, first), *others = ((name, x) for name, x in _BACKENDS.items() if _can_run(x, bundle))
    begin(f"measuring the guard: {name}")
    distinct = sorted({_rows(bundle, level): level for level in reversed(levels)}.values())
    coded = _encode(_open(bundle, first), images, distinct)
    largest = {x.name: dict.fromkeys(distinct, Deltas(0.0, 0.0, 0.0)) for x in bundle.manifest.latents if x.guard}
    for name, other in others:  # one after the other: a large model is in memory once
        begin(f"measuring the guard: {name}")
        _compare(_open(bundle, other), coded, largest)
    return largest


def _rows(bundle: Bundle, level: int) -> bytes:
    """What a level is: a published model has the same rows at all of them."""
    tables = sorted(bundle.tables.items())
    return b"".join(table[level].tobytes() for name, table in tables if is_quality_table(name) or is_first_table(name))


def _can_run(setting: tuple[str, BackendOptions, str], bundle: Bundle) -> bool:
    name, options, package = setting
    return importlib.util.find_spec(package) is not None and (name != "torch" or _torch_runs(bundle, options))


def _torch_runs(bundle: Bundle, options: BackendOptions) -> bool:
    """Whether the reference backend has the operators of a bundle's graphs, in the forms in which they are there."""
    backend, unit = TorchBackend(options), bundle.manifest.alignment
    try:
        for graph in bundle.manifest.graphs:
            backend.load(graph, bundle)([np.zeros(x.shape(unit, unit), np.float32) for x in graph.inputs])
    except Exception:  # each operator fails in its own way
        return False
    return True


class _Kept(Generic[R]):
    """Makes roundings, and keeps the last one: where memory runs out, coding begins again."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._make = make

    def __call__(self) -> R:
        self.last = self._make()
        return self.last


def _open(bundle: Bundle, setting: tuple[str, BackendOptions, str]) -> Codec:
    return Codec(bundle, setting[0], setting[1])


def _encode(
    codec: Codec, images: Sequence[npt.NDArray[np.uint8]], levels: Sequence[int]
) -> list[tuple[int, Record, bytes]]:
    coded = []
    for image in images:
        for level in levels:
            record = _Kept(Record)
            data = codec.pack(codec.host.quantise(image, level, begin_rounding=record))
            coded.append((level, record.last, data))
    return coded


def _compare(
    codec: Codec, coded: Sequence[tuple[int, Record, bytes]], largest: Mapping[str, dict[int, Deltas]]
) -> None:
    """Widens `largest` to how far a codec's numbers are from those recorded."""
    for level, record, data in coded:
        replay = _Kept(partial(Replay, record))
        codec.decode(data, begin_rounding=replay)
        for (name, kind), difference in zip(_rounded(codec.bundle.manifest), replay.last.differences, strict=True):
            known = largest[name][level]
            largest[name][level] = replace(known, **{kind: max(difference, getattr(known, kind))})


def random_images(side: int) -> list[npt.NDArray[np.uint8]]:
    """Images twice as wide as high: of photographs' spectrum (amplitude 1/f), weak and strong, and of blocks."""
    images = []
    for seed, contrast in enumerate((30.0, 90.0)):
        rng = np.random.default_rng(seed)
        frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(2 * side)[None])
        frequency[0, 0] = np.inf
        planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, 2 * side))) / frequency) for _ in range(3)]
        mixed = np.stack([planes[0] + 0.3 * plane for plane in planes], axis=2)
        images.append(np.clip(128 + contrast * mixed / mixed.std(), 0, 255).astype(np.uint8))
    for block in _BLOCKS:
        colours = 255 * np.random.default_rng(block).integers(0, 2, (side // block, 2 * side // block, 3), np.uint8)
        images.append(colours.repeat(block, axis=0).repeat(block, axis=1))
    return images


def _rounded(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What is rounded, in order: latent and quantity."""
    for latent in (manifest.latent(step.target) for step in manifest.decode if step.op == "code"):
        for chunk in latent.chunks if latent.guard else ():
            yield from ((latent.name, "mean"), (latent.name, "index")) if chunk.graph else ()
            yield from ((latent.name, "residual"),) if chunk.residual else ()


def _measured(guard: Guard, differences: Mapping[int, Deltas]) -> Guard:
    def delta(difference: float) -> float:
        if SAFETY * difference > LARGEST_DELTA:
            raise InputError(
                f"backends differ by {difference:.2g} of a step where the entropy path is rounded; a guard is good for "
                f"{LARGEST_DELTA / SAFETY:g}"
            )
        return max(_SMALLEST, SAFETY * difference)

    deltas = tuple(Deltas(delta(x.mean), delta(x.index), delta(x.residual)) for x in differences.values())
    return replace(guard, levels=tuple(differences), deltas=deltas)
