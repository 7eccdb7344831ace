"""The fullest memory of a node is the one that is told."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from serve_app.monitor import memory
from serve_app.monitor.memory import memory_in_use

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose memory is used by a tenth, without a GPU."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(percent=10.0))
    gpus(monkeypatch, [])
    yield
    memory._has_driver.cache_clear()


def gpus(monkeypatch: pytest.MonkeyPatch, used_gib: list[int], of_gib: int = 80) -> None:
    """Let NVML tell of so many GPUs; of none there is no driver."""
    memory._has_driver.cache_clear()

    def begin() -> None:
        if not used_gib:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", begin)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(used_gib))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda i: SimpleNamespace(used=used_gib[i] * GIB, total=of_gib * GIB)
    )


def group(folder: Path, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    return folder


def test_of_a_machine_alone_it_is_its_own(tmp_path: Path) -> None:
    assert memory_in_use(tmp_path) == 0.1


@pytest.mark.parametrize(("limit", "expected"), [("max", 0.1), (str(4 * GIB), 0.75), (str(60 * GIB), 0.1)])
def test_a_container_with_a_limit_may_be_fuller(tmp_path: Path, limit: str, expected: float) -> None:
    assert memory_in_use(group(tmp_path, limit, 3 * GIB)) == expected


def test_the_fullest_gpu_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, [8, 72])
    assert memory_in_use(tmp_path) == 0.9


def test_a_gpu_that_is_lost_takes_nothing_else_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, [72])

    def lost(_: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    assert memory_in_use(tmp_path) == 0.1
