"""Bundles and the networks in them. Import `stage` for what needs torch."""

from serve_app.model.bundle import (
    Bundle,
    BundleConfig,
    LabelDefinition,
    ScalerFile,
    load_bundle,
    write_bundle,
)
from serve_app.model.golden import Golden

__all__ = [
    "Bundle",
    "BundleConfig",
    "Golden",
    "LabelDefinition",
    "ScalerFile",
    "load_bundle",
    "write_bundle",
]
