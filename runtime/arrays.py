"""What arrays hold, by name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""[H, W], or [H, W, C] with grey or colours first and alpha last."""
Tensor = npt.NDArray[np.float32]
"""What graphs take and give, [1, C, H, W]."""
Integers = npt.NDArray[np.int32]
"""A latent [C, H, W] in 1/16."""
