from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serve_app.errors import BundleCorrupt, BundleError
from serve_app.model import Bundle, load_bundle
from serve_app.training.reference import make_reference, seen_in_training, with_reference
from serve_app.types import Bars
from tests.factories import CANDIDATE, PRODUCTION

TRAIN_END = np.datetime64("2009-03-26")


def test_a_shipped_bundle_knows_what_its_model_saw(bars: dict[str, Bars]) -> None:
    bundle = load_bundle(CANDIDATE)
    assert bundle.reference is not None
    again = make_reference(bundle, seen_in_training(bundle, bars, TRAIN_END))
    np.testing.assert_allclose(again.quantiles, bundle.reference.quantiles, atol=1e-5)
    np.testing.assert_allclose(again.ks_limits, bundle.reference.ks_limits, atol=0.02)


def test_the_reference_looks_no_further_than_the_training_period(bars: dict[str, Bars]) -> None:
    bundle = load_bundle(PRODUCTION)
    close = np.where(bars["IBM"].timestamp > TRAIN_END, 2.0, 1.0) * bars["IBM"].columns["close"]
    later = replace(bars["IBM"], columns={**bars["IBM"].columns, "close": close})
    whole, changed = (seen_in_training(bundle, {"IBM": one}, TRAIN_END) for one in (bars["IBM"], later))
    np.testing.assert_array_equal(whole["IBM"], changed["IBM"])


def test_a_bundle_is_given_a_reference_as_another_version(tmp_path: Path, bars: dict[str, Bars]) -> None:
    source = load_bundle(PRODUCTION)
    made = with_reference(source, bars, TRAIN_END, tmp_path / "v1.7", "v1.7")
    assert (made.version, made.metadata["git_tag"]) == ("v1.7", "model-v1.7")
    assert made.reference is not None
    assert made.reference.to_bytes() == load_bundle(made.path).reference.to_bytes()  # type: ignore[union-attr]
    with pytest.raises(BundleError, match="there is no reference"):
        with_reference(source, {"IBM": bars["IBM"].until(300)}, TRAIN_END, tmp_path / "v1.8", "v1.8")
    assert not (tmp_path / "v1.8").exists()


def test_a_reference_that_is_none_is_refused(tmp_path: Path, bars: dict[str, Bars]) -> None:
    source = load_bundle(PRODUCTION)
    made: Bundle = with_reference(source, bars, TRAIN_END, tmp_path / "v1.7", "v1.7")
    (made.path / "reference.npz").write_bytes(b"PK")
    with pytest.raises(BundleCorrupt, match=r"reference\.npz"):
        load_bundle(made.path)
