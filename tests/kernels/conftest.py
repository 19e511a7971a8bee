from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from condic.kernels import Tables, gaussian_tables

# A busy machine is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def gaussians() -> Tables:
    """64 Gaussian tables with standard deviations from 0.11 to 64."""
    return Tables(*gaussian_tables(np.exp(np.linspace(np.log(0.11), np.log(64.0), 64))))
