"""A latent's section, checksums and the coder's payload, between the file and a program's staging memory."""

from __future__ import annotations

import numpy as np

from condic import kernels
from condic.errors import InputError
from condic.kernels.device import RANS_WHILE_DECODING, RESULT, rans_problem
from condic.runtime.cuda.program import ChunkSite, LatentSite
from condic.runtime.cuda.workspace import LoadedProgram
from condic.runtime.latents import LatentSection

Payload = bytes | memoryview


def coded_on_host(latent: LatentSite, loaded: LoadedProgram, tables: kernels.Tables) -> bytes:
    """The section of a latent whose symbols have been fetched."""
    symbols, indexes = loaded.staged(latent.tensor("symbols"), np.int16), loaded.staged(latent.tensor("indexes"))
    results = loaded.staged(latent.tensor("results"), RESULT)
    spans = [slice(x.begin, x.begin + int(result["coded"])) for x, result in zip(latent.chunks, results, strict=True)]
    payload = kernels.encode(tables, [(symbols[span], indexes[span]) for span in spans])
    return LatentSection.of(_checksums(latent, loaded), payload)


def coded_on_device(latent: LatentSite, loaded: LoadedProgram) -> bytes:
    """The section of a latent that the device has coded. What its payload has beyond its room is fetched now."""
    error, size = loaded.staged(latent.tensor("coder"), np.uint32)[:2].tolist()
    if problem := rans_problem(error):
        raise InputError(f"the image cannot be coded: {problem}")
    name = latent.tensor("payload")
    first = loaded.staged(name)[:size].tobytes()
    return LatentSection.of(_checksums(latent, loaded), first + loaded.fetch(name, len(first), size).tobytes())


def _checksums(latent: LatentSite, loaded: LoadedProgram) -> list[int]:
    checksums: list[int] = loaded.staged(latent.tensor("results"), RESULT)["checksum"].tolist()
    return checksums


class SectionDecoding:
    """A latent's section while it is decoded."""

    def __init__(self, latent: LatentSite, data: Payload) -> None:
        """Raises StreamError where it is too short for its checksums."""
        self.latent, self._section = latent, LatentSection(latent.name, len(latent.chunks), data)
        self._unchecked = list(latent.chunks)

    def check(self, loaded: LoadedProgram, before: ChunkSite | None = None) -> None:
        """Compares the checksums of chunks that the device has decoded: those before one, or all."""
        checksums = _checksums(self.latent, loaded)
        while self._unchecked and (before is None or self._unchecked[0].ordinal < before.ordinal):
            chunk = self._unchecked.pop(0)
            self._section.check(chunk.number, checksums[chunk.number])


class HostDecoding(SectionDecoding):
    """The host decodes, a chunk at a time."""

    def __init__(self, latent: LatentSite, data: Payload, tables: kernels.Tables) -> None:
        """Raises StreamError for a payload that the coder rejects."""
        super().__init__(latent, data)
        with self._section.named_errors():
            self._decoder = kernels.Decoder(tables, self._section.payload)

    def decode(self, chunk: ChunkSite, loaded: LoadedProgram) -> None:
        """Decodes a chunk's symbols, with the tables that the device has found."""
        coded = int(loaded.staged(self.latent.tensor("results"), RESULT)[chunk.number]["coded"])
        span = slice(chunk.begin, chunk.begin + coded)
        with self._section.named_errors():
            symbols = self._decoder.decode(loaded.staged(self.latent.tensor("indexes"))[span])
        loaded.staged(self.latent.tensor("symbols"), np.int16)[span] = symbols

    def finish(self) -> None:
        """After the last chunk."""
        with self._section.named_errors():
            self._decoder.finish()


class DeviceDecoding(SectionDecoding):
    """The device decodes; it says at the end how it went."""

    @property
    def fits(self) -> bool:
        """Whether the payload is no larger than what is copied to the device."""
        return len(self._section.payload) <= self.latent.payload_room

    def stage(self, loaded: LoadedProgram) -> None:
        """Puts the payload where the device takes it from."""
        payload = np.frombuffer(self._section.payload, np.uint8)
        loaded.staged(self.latent.tensor("payload"))[: payload.size] = payload
        loaded.staged(self.latent.tensor("size"), np.uint32)[0] = payload.size

    def finish(self, loaded: LoadedProgram) -> None:
        """Raises StreamError for a payload that the coder rejects, IntegrityError for a checksum."""
        error = int(loaded.staged(self.latent.tensor("coder"), np.uint32)[0])
        if error & RANS_WHILE_DECODING == 0:
            self.check(loaded)
        with self._section.named_errors():
            if problem := rans_problem(error):
                raise ValueError(problem)
