"""Checks of the machine: memory and versions."""

import re
from importlib import metadata
from platform import python_version

from serve_app.doctor.diagnosis import Check, Verdict
from serve_app.model import Bundle


def memory(bundle: Bundle | None) -> Check:
    """Weigh the weights and this process."""
    import psutil  # noqa: PLC0415

    weights = sum(values.nbytes for values in bundle.weights.values()) if bundle else 0
    resident, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    finding = f"weights {weights / 2**20:.2f} MiB, this process {resident / 2**20:.0f} MiB, free {free / 2**20:.0f} MiB"
    if free < resident:
        return Check(
            "memory", Verdict.WARN, finding, "another replica would not fit: fewer replicas, or topology fused"
        )
    return Check("memory", Verdict.OK, finding)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> Check:
    """Versions from package metadata, so that nothing heavy is imported; against the pins of this package."""
    installed = {name: _version(name) for name in ("torch", "numpy", "ray")}
    finding = ", ".join([f"python {python_version()}", *(f"{name} {version}" for name, version in installed.items())])
    try:
        requirements = metadata.requires("signalgraph") or []
    except metadata.PackageNotFoundError:
        requirements = []
    pins = [match for line in requirements if (match := re.match(r"(\w+)(?:\[\w+\])?==([\d.]+)", line))]
    off = [
        f"{name} {pin}"
        for name, pin in (match.groups() for match in pins)
        if name in installed and (installed[name] or "").split("+")[0] != pin
    ]
    if off:
        return Check("versions", Verdict.WARN, finding, f"made for {', '.join(off)}: run `make setup`")
    return Check("versions", Verdict.OK, finding)
