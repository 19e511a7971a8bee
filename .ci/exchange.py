"""Files between machines: exchange.py PHOTOGRAPH FOLDER NAME, run in turn on each machine, then again on the first.

Writes the photograph to FOLDER/MODEL with every shipped model, decodes all files there, whichever machine wrote them,
and compares with what other machines decoded: latents bit for bit, pictures within one grey level.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import condic
from condic.runtime.shipped import shipped_bundles


def main(photograph: str, folder: Path, machine: str) -> None:
    image = Image.open(photograph).crop((60, 60, 252, 188))
    for model in shipped_bundles():
        codec = condic.open_codec(model)
        files = folder / model
        files.mkdir(exist_ok=True)
        (files / f"{machine}.cdic").write_bytes(codec.encode(image, 32))
        for file in sorted(files.glob("*.cdic")):
            decoded = codec.decode(file, latents=True)
            result = {"image": decoded.image, **decoded.latents}
            np.savez(file.with_suffix(f".{machine}.npz"), **result)
            for other in sorted(files.glob(f"{file.stem}.*.npz")):
                with np.load(other) as known:
                    for name, values in result.items():
                        difference = abs(values.astype(int) - known[name]).max()
                        assert difference <= (name == "image"), f"{model}, {file.name}: {name} differs by {difference}"
            print(f"{model}, {file.name}: {len(file.read_bytes())} bytes, the same on", end=" ")
            print(*(other.suffixes[0][1:] for other in sorted(files.glob(f"{file.stem}.*.npz"))), sep=", ")


main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
