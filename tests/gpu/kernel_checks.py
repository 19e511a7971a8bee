"""The kernels on a GPU against the host's, byte for byte, and how fast they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from bench import Bench, require

from condic import kernels
from condic.kernels import StridedBox
from condic.kernels.device import (
    DECODER,
    RESULT,
    ChunkLayout,
    DecodeTargets,
    DeviceTables,
    Prediction,
    StreamLayout,
    chunk_indexes,
    decode_chunk,
    encode_chunk,
    pixels_to_tensor,
    rans_close,
    rans_open,
    rans_pop,
    tables_image,
    tensor_to_pixels,
)
from condic.runtime.bundle import Bundle
from condic.runtime.cuda.driver import Driver
from condic.runtime.pixels import PixelSource
from condic.runtime.tiles import Region

Facts = dict[str, float]


def _chunk(shape: tuple[int, int, int], first_coded: int) -> ChunkLayout:
    """A quarter of a latent, as dcic-sgp has it."""
    channels, rows, columns = shape
    cuts = [channels * k // 4 for k in range(5)]
    boxes = tuple(StridedBox(cuts[k], cuts[k + 1], r, rows, 2, q, columns, 2) for k, (r, q) in enumerate(
        [(0, 0), (1, 1), (0, 1), (1, 0)]
    ))  # fmt: skip
    return ChunkLayout(shape, boxes, 64, first_coded, 2, 1023)


def _prediction(
    chunk: ChunkLayout, seed: int, *, quiet: bool = False
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Planes and y of all kinds, infinite ones apart; `quiet`: of nearly nothing but zeros."""
    generator = np.random.default_rng(seed)
    if quiet:
        y = np.zeros(chunk.shape, np.float32)
        y.flat[::2003] = 1
        return np.zeros((2, *chunk.shape), np.float32), y
    planes = np.stack([generator.normal(size=chunk.shape) * 100, generator.uniform(-2, 30, chunk.shape)])
    planes[0].flat[::97] *= 1e6
    y = generator.normal(size=chunk.shape) * 3
    y.flat[::1009] *= 1e4
    return np.floor(planes).astype(np.float32), y.astype(np.float32)


def check_kernels(driver: Driver, bundle: Bundle, sides: Sequence[int] = (4, 30, 136)) -> Facts:
    """Chunks of several sizes, rANS both ways, and pixels, against the host, byte for byte."""
    tables = kernels.Tables(bundle.tables["cdf"], bundle.tables["radius"])
    with Bench(driver) as bench:
        coder = DeviceTables(bench.put(np.frombuffer(tables_image(tables), np.uint8)), tables)
        for side in sides:
            for first_coded, quiet in ((0, False), (2, False), (0, True)):
                _check_chunk(bench, coder, tables, _chunk((64, side, side + 5), first_coded), quiet=quiet)
        for height, width, channels in ((1, 1, 3), (131, 77, 3), (64, 300, 1)):
            _check_pixels(bench, height, width, channels)
    return {"chunks": 3 * len(sides)}


def _check_chunk(bench: Bench, coder: DeviceTables, tables: kernels.Tables, chunk: ChunkLayout, *, quiet: bool) -> None:
    planes, y = _prediction(chunk, chunk.shape[1], quiet=quiet)
    y.flat[0] = np.nan
    boxes = np.array(chunk.boxes, np.int32)
    mean, scale = np.empty(chunk.size, np.int16), np.empty(chunk.size, np.uint8)
    kernels.store_distribution(planes, (0, 0), chunk.shape, boxes, chunk.scales, mean, scale)
    latents = np.zeros(chunk.shape, np.int32)
    symbols, indexes, checksum = kernels.quantise_chunk(y, mean, scale, boxes, chunk.first_coded, latents)
    payload = kernels.encode(tables, [(symbols, indexes)])

    what = f"{'quiet ' if quiet else ''}chunk of {chunk.size} elements, coded from scale {chunk.first_coded}"
    elements = int(np.prod(chunk.shape))
    source, result = Prediction(bench.put(planes)), bench.zeros(RESULT.itemsize)
    at_symbols, at_indexes = bench.zeros(2 * chunk.size), bench.zeros(chunk.size)
    decoded, not_finite = DecodeTargets(bench.zeros(4 * elements)), bench.zeros(4)
    bench.run(encode_chunk(
        chunk, source, bench.put(y), decoded, symbols=at_symbols, indexes=at_indexes, result=result,
        scan=bench.zeros(chunk.scan_bytes), not_finite=not_finite,
    ))  # fmt: skip
    require(bench.get(not_finite, 1, np.uint32)[0] == 1, f"{what}: NaN went unseen")
    coded = bench.get(result, 2, np.uint32).tolist()
    require(coded == [len(symbols), checksum], f"{what}: count and checksum are {coded}")
    require(np.array_equal(bench.get(at_symbols, len(symbols), np.int16), symbols), f"{what}: other symbols")
    require(np.array_equal(bench.get(at_indexes, len(indexes), np.uint8), indexes), f"{what}: other indexes")
    require(np.array_equal(bench.get(decoded.latents, chunk.shape, np.int32), latents), f"{what}: other latents")

    stream = StreamLayout((chunk.size,))
    workspace, at_payload = bench.zeros(stream.workspace_bytes), bench.zeros(stream.payload_bytes)
    bench.run(*stream.encode(
        coder, symbols=at_symbols, indexes=at_indexes, results=result, workspace=workspace, payload=at_payload
    ))  # fmt: skip
    error, size = bench.get(workspace, 2, np.uint32).tolist()
    require((error, size) == (0, len(payload)), f"{what}: {size} bytes of payload, not {len(payload)}; error {error}")
    require(bench.get(at_payload, size, np.uint8).tobytes() == payload, f"{what}: other payload")

    result, scan, decoder = bench.zeros(RESULT.itemsize), bench.zeros(chunk.scan_bytes), bench.zeros(DECODER.itemsize)
    decoded = DecodeTargets(bench.zeros(4 * elements))
    at_symbols, at_size = bench.zeros(2 * chunk.size), bench.put(np.array([len(payload)], np.uint32))
    bench.run(
        rans_open(bench.put(np.frombuffer(payload, np.uint8)), at_size, decoder),
        chunk_indexes(chunk, source, indexes=at_indexes, result=result, scan=scan),
        rans_pop(coder, decoder, indexes=at_indexes, result=result, symbols=at_symbols),
        decode_chunk(chunk, source, decoded, symbols=at_symbols, result=result, scan=scan, decoder=decoder),
        rans_close(decoder),
    )
    require(bench.get(decoder, 1, np.uint32)[0] == 0, f"{what}: the decoder reports an error")
    require(int(bench.get(result, 2, np.uint32)[1]) == checksum, f"{what}: decoded to another checksum")
    require(np.array_equal(bench.get(decoded.latents, chunk.shape, np.int32), latents), f"{what}: decoded to others")


def _check_pixels(bench: Bench, height: int, width: int, channels: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels)).astype(np.uint8)
    rows, columns = (side + -side % 128 for side in (height, width))
    tensor, what = bench.zeros(12 * rows * columns), f"pixels of {width}x{height}"
    bench.run(pixels_to_tensor(bench.put(pixels), pixels.shape, tensor, (rows, columns)))
    rgb = np.broadcast_to(pixels, (height, width, 3))
    expected = PixelSource(rgb, 128).tensor(Region(0, rows // 128, 0, columns // 128))[0]
    require(np.array_equal(bench.get(tensor, expected.shape, np.float32), expected), f"{what}: another tensor")
    target, not_finite = bench.zeros(pixels.size), bench.zeros(4)
    bench.run(tensor_to_pixels(tensor, (rows, columns), target, pixels.shape, not_finite=not_finite))
    require(bench.get(not_finite, 1, np.uint32)[0] == 0, f"{what}: not finite")
    require(np.array_equal(bench.get(target, pixels.shape, np.uint8), pixels), f"{what}: others come back")


def measure_kernels(driver: Driver, height: int, width: int, runs: int = 50) -> Facts:
    """Microseconds of a chunk at a size of image with preset s's main latent, as dcic-sgp's programs launch it."""
    chunk = _chunk((192, -(-height // 128) * 8, -(-width // 128) * 8), first_coded=0)
    planes, y = _prediction(chunk, 1)
    with Bench(driver) as bench:
        source, result, scan = (
            Prediction(bench.put(planes)),
            bench.zeros(RESULT.itemsize),
            bench.zeros(chunk.scan_bytes),
        )
        symbols, indexes, at_y = bench.zeros(2 * chunk.size), bench.zeros(chunk.size), bench.put(y)
        decoded = DecodeTargets(*(bench.zeros(4 * y.size) for _ in range(3)))
        for_context = DecodeTargets(context=decoded.context)  # which is all that an encoder goes on with

        def again() -> None:
            bench.clear(result, RESULT.itemsize)
            bench.clear(scan, chunk.scan_bytes)

        encode = encode_chunk(
            chunk, source, at_y, for_context, symbols=symbols, indexes=indexes, result=result, scan=scan
        )  # fmt: skip
        encoding = bench.seconds(again, encode, runs=runs)
        find = chunk_indexes(chunk, source, indexes=indexes, result=result, scan=scan)
        place = decode_chunk(chunk, source, decoded, symbols=symbols, result=result, scan=scan)
        decoding = bench.seconds(again, find, place, runs=runs)
    return {"elements": chunk.size, "encode_chunk_us": 1e6 * encoding, "decode_chunk_us": 1e6 * decoding}


def measure_coder(
    driver: Driver, bundle: Bundle, chunks: Sequence[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
    runs: int = 50,
) -> Facts:  # fmt: skip
    """Symbols per second of the coder on the chunks of a latent, symbols and indexes, as an encoder made them."""
    tables = kernels.Tables(bundle.tables["cdf"], bundle.tables["radius"])
    expected = kernels.encode(tables, chunks)
    symbols = np.concatenate([each for each, _ in chunks])
    results = np.zeros(len(chunks), RESULT)
    results["coded"] = [len(each) for each, _ in chunks]
    with Bench(driver) as bench:
        coder = DeviceTables(bench.put(np.frombuffer(tables_image(tables), np.uint8)), tables)
        scales = np.concatenate([each for _, each in chunks])
        indexes, at_results = bench.put(scales), bench.put(results)
        stream = StreamLayout(tuple(results["coded"].tolist()))
        workspace, payload = bench.zeros(stream.workspace_bytes), bench.zeros(stream.payload_bytes)
        launches = stream.encode(
            coder, symbols=bench.put(symbols), indexes=indexes, results=at_results, workspace=workspace, payload=payload
        )
        encoding = bench.seconds(lambda: bench.clear(workspace, stream.zero_bytes), *launches, runs=runs)
        error, size = bench.get(workspace, 2, np.uint32).tolist()
        require(error == 0 and bench.get(payload, size, np.uint8).tobytes() == expected, "other payload")

        decoder, at_size = bench.zeros(DECODER.itemsize), bench.put(np.array([size], np.uint32))
        target = bench.zeros(symbols.nbytes)
        opened = rans_open(payload, at_size, decoder)
        popped = [
            rans_pop(
                coder, decoder, indexes=indexes + stream.begin(k), result=at_results + RESULT.itemsize * k,
                symbols=target + 2 * stream.begin(k),
            )
            for k in range(len(chunks))
        ]  # fmt: skip
        decoding = bench.seconds(lambda: bench.driver.launch(opened, bench._stream), *popped, runs=runs)
        held = np.abs(symbols.astype(np.int32)) <= tables.radius[scales]  # `decode_chunk` puts in what escapes
        require(np.array_equal(bench.get(target, len(symbols), np.int16)[held], symbols[held]), "other symbols")
        lanes = bench.get(decoder, 1, DECODER)[0]
    return {
        "symbols": len(symbols), "bytes": size, "lanes": int(lanes["groups"]) << int(lanes["log2_lanes"]),
        "encode_us": 1e6 * encoding,
        "decode_us": 1e6 * decoding, "encode_symbols_per_second": len(symbols) / encoding,
        "decode_symbols_per_second": len(symbols) / decoding,
    }  # fmt: skip
