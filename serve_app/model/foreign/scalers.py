"""Scalers of every form → one mean and one scale a feature."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from serve_app.config import Section
from serve_app.errors import BundleError
from serve_app.model.bundle import ScalerFile

PREFERRED = ("global", "standard", "default")
HOW = "give a StandardScaler or RobustScaler, {'global': scaler}, {'feature_0': scaler, …} or JSON {mean, scale}"


class ScalerNumbers(Section):
    """What a scaler does: (x - mean) / scale per feature."""

    mean: list[float]
    scale: list[float]
    form: str
    """What it was, for the metadata."""
    names: list[str] | None = None
    """The features it was fitted on, if it was fitted on a frame."""


def scaler_numbers(value: Any) -> ScalerNumbers:
    """Reduce a scaler, or a dict of scalers, to its numbers. Raises BundleError for anything else."""
    if not isinstance(value, Mapping):
        return _of_object(value, type(value).__name__)
    if {"mean", "scale"} <= set(value):
        return _of_json(value)
    features = sorted((int(match[1]), key) for key in value if (match := re.fullmatch(r"feature_(\d+)", str(key))))
    if features:
        return _per_feature(value, features)
    keys = [key for key in PREFERRED if key in value] or [key for key in value if _is_scaler(value[key])]
    if not keys or (len(keys) > 1 and keys[0] not in PREFERRED):
        raise BundleError(f"no scaler to be sure of under the keys {_some(value)}; {HOW}")
    chosen = scaler_numbers(value[keys[0]])
    return chosen.model_copy(update={"form": f"{chosen.form} under {keys[0]!r}"})


def check_scaler(numbers: ScalerNumbers, n_features: int) -> ScalerFile:
    """Return the numbers as a bundle has them. Raises BundleError when they do not fit the model or cannot be used."""
    mean, scale = np.array(numbers.mean), np.array(numbers.scale)
    if len(mean) != n_features or len(scale) != n_features:
        raise BundleError(
            f"the scaler was fitted on {len(mean)} features, the model takes {n_features}: they do not belong together;"
            " give the scaler that was fitted when this model was trained"
        )
    bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(scale) & (scale > 0)))
    if len(bad):
        first = int(bad[0])
        raise BundleError(
            f"the scaler's feature {first} has mean {mean[first]} and scale {scale[first]}: means must be finite and"
            " scales above zero. Fit it again on data without gaps"
        )
    return ScalerFile(mean=mean.tolist(), scale=scale.tolist())


def _is_scaler(value: Any) -> bool:
    return any(hasattr(value, name) for name in ("mean_", "center_"))


def _some(value: Mapping[Any, Any]) -> str:
    return ", ".join(sorted(map(repr, value))[:5]) or "(none)"


def _of_json(value: Mapping[Any, Any]) -> ScalerNumbers:
    try:
        return ScalerNumbers.model_validate({"mean": value["mean"], "scale": value["scale"], "form": "mean and scale"})
    except ValidationError as error:
        raise BundleError(f"mean and scale must be lists of numbers, one a feature: {error}") from error


def _per_feature(value: Mapping[Any, Any], features: Sequence[tuple[int, Any]]) -> ScalerNumbers:
    if [number for number, _ in features] != list(range(len(value))):
        raise BundleError(f"scalers per feature must be feature_0, feature_1, … and nothing else; here: {_some(value)}")
    each = [scaler_numbers(value[key]) for _, key in features]
    wide = [key for (_, key), one in zip(features, each, strict=True) if len(one.mean) != 1]
    if wide:
        raise BundleError(f"the scaler under {wide[0]!r} was fitted on more than one feature")
    return ScalerNumbers(
        mean=[one.mean[0] for one in each],
        scale=[one.scale[0] for one in each],
        form=f"{each[0].form} per feature",
    )


def _of_object(scaler: Any, kind: str) -> ScalerNumbers:
    centre = getattr(scaler, "mean_", None) if hasattr(scaler, "mean_") else getattr(scaler, "center_", None)
    scale = getattr(scaler, "scale_", None)
    known = centre if scale is None else scale
    if not _is_scaler(scaler) or known is None:
        raise BundleError(f"a {kind} is not a fitted scaler of mean and scale; {HOW}")
    n = np.size(known)
    # sklearn keeps the mean also when it is told not to subtract it.
    centred = getattr(scaler, "with_mean", getattr(scaler, "with_centering", True)) and centre is not None
    mean = np.asarray(centre if centred else np.zeros(n), dtype=np.float64)
    scale = np.asarray(np.ones(n) if scale is None else scale, dtype=np.float64)
    if mean.shape != (n,) or scale.shape != (n,):
        raise BundleError(f"the {kind} has means of shape {mean.shape} and scales of shape {scale.shape}; {HOW}")
    _check_transform(scaler, kind, mean, scale)
    names = getattr(scaler, "feature_names_in_", None)
    return ScalerNumbers(
        mean=mean.tolist(),
        scale=scale.tolist(),
        form=kind,
        names=None if names is None else [str(name) for name in names],
    )


def _check_transform(scaler: Any, kind: str, mean: Any, scale: Any) -> None:
    """Hold the numbers against what the scaler itself does to a few rows."""
    if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        return  # refused by `check_scaler`, with the feature named
    rows = mean + scale * np.array([[-2.0], [0.0], [1.5]])
    try:
        scaled = np.asarray(scaler.transform(rows))
    except Exception as error:
        raise BundleError(f"the {kind} does not transform {len(mean)} features: {error}") from error
    if scaled.shape != rows.shape or not np.allclose(scaled, (rows - mean) / scale, rtol=1e-7, atol=1e-9):
        raise BundleError(f"this {kind} does something else than (x - mean) / scale; {HOW}")
