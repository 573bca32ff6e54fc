"""One pool of decoding processes and the sample images for every test of the codec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest

from internal.codec import Codec, Limits


@pytest.fixture(scope="session")
def codec() -> Iterator[Codec]:
    with Codec(children=1, limits=Limits(memory_bytes=1024**3, cpu_s=20, wall_s=60)) as codec:
        yield codec


def sample(name: str) -> Path:
    """Return a sample image of pydicom or pydicom-data."""
    path = pydicom.data.get_testdata_file(name, download=False)
    assert path, f"no sample {name}"
    return Path(str(path))
