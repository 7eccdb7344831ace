"""Arrays as a compressed npz archive, and back without unpickling anything."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 256 << 20
"""Bytes of all arrays together."""


def pack(arrays: Mapping[str, Any]) -> bytes:
    """Return the archive, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays again. Raises ValueError for an archive that would fill the memory of whoever opens it."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        if sum(entry.file_size for entry in archive.zip.infolist()) > LARGEST:
            raise ValueError(f"it declares more than {LARGEST >> 20} MiB")
        return {name: archive[name] for name in archive.files}
