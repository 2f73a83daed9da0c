import os
from pathlib import Path

import pytest

from standin_hub import StandinHub


@pytest.fixture
def hub(tmp_path):
    """An empty stand-in hub with a cache of its own."""
    with StandinHub(tmp_path / "hub") as server:
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material, which a user's machine does not have."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("LANGSAE_REFERENCE", beside))
    if not folder.is_dir():
        pytest.skip("../shared not present")
    return folder
