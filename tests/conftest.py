"""What the tests share: the development data where it exists, and quiet threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    """The machines that run the tests have two cores; more threads only make small tests slower."""
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the checkout; a user's clone has none."""
    if not SHARED.is_dir():
        pytest.skip("the development data (../shared) is not beside this checkout")
    return SHARED
