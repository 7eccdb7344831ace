"""A replica of preprocess or strategy serves no bundle whose golden cases it does not reproduce."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.bundles import Shelf
from deployments.hop import Hop
from deployments.preprocess import PreprocessDeployment
from deployments.strategy import StrategyDeployment
from serve_app.errors import ParityError
from serve_app.model import Bundle, load_bundle, write_bundle
from serve_app.pipeline import preprocess_of, strategy_of
from serve_app.preprocess import Preprocess, Scaler
from serve_app.strategy import Strategy
from serve_app.types import Action
from tests.factories import PRODUCTION, on_other_features

DEPLOYMENTS = [PreprocessDeployment, StrategyDeployment]


def another_arithmetic(bundle: Bundle) -> Preprocess:
    """Preprocess as a node computes it whose numbers come out otherwise."""
    made = preprocess_of(bundle)
    return replace(made, scaler=Scaler(np.array(bundle.scaler.mean) * 1.001, np.array(bundle.scaler.scale)))


def another_rule(bundle: Bundle) -> Strategy:
    """A strategy that buys whatever it is told."""
    made = strategy_of(bundle)
    return replace(made, thresholds=replace(made.thresholds, signal_threshold=0.0))


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_replica_that_reproduces_its_bundle_starts(deployment: Callable[[Shelf], Hop[Any, Any]]) -> None:
    shelf = Shelf.of(str(PRODUCTION))
    assert asyncio.run(deployment(shelf).held()) == [shelf.refs[0].digest]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_so_does_one_for_features_that_are_not_computed_here(
    deployment: Callable[[Shelf], Hop[Any, Any]], bundle: Bundle, tmp_path: Path
) -> None:
    written = on_other_features(bundle, tmp_path / "v4.0")
    assert asyncio.run(deployment(Shelf.of(str(written.path))).held()) == [written.digest]


@pytest.mark.parametrize(
    ("deployment", "name", "other", "reason"),
    [
        (PreprocessDeployment, "preprocess.preprocess_of", another_arithmetic, "golden case 0: feature open in row 0"),
        (StrategyDeployment, "strategy.strategy_of", another_rule, r"golden case \d+: the action is BUY"),
    ],
)
def test_a_replica_that_computes_otherwise_never_starts(
    deployment: Callable[[Shelf], Hop[Any, Any]],
    name: str,
    other: Callable[[Bundle], Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"deployments.{name}", other)
    with pytest.raises(ParityError, match=reason):
        deployment(Shelf.of(str(PRODUCTION)))


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_later_bundle_that_is_not_reproduced_is_not_loaded(
    deployment: Callable[[Shelf], Hop[Any, Any]], bundle: Bundle, tmp_path: Path
) -> None:
    golden = bundle.golden
    swapped = {"BUY": Action.HOLD, "HOLD": Action.SELL, "SELL": Action.BUY}
    actions = np.array([str(swapped[action]) for action in golden.actions.tolist()])
    for version, cases in (("v1.0", golden), ("v1.5", replace(golden, windows=golden.windows + 1, actions=actions))):
        config = bundle.config.model_copy(update={"model_version": version})
        write_bundle(replace(bundle, path=tmp_path / version, config=config, golden=cases))
    replica = deployment(Shelf.of(str(tmp_path / "v1.0")))
    later = load_bundle(tmp_path / "v1.5").digest
    with pytest.raises(ParityError):
        asyncio.run(replica.load(later))
    assert later not in asyncio.run(replica.held())


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_bundle_without_cases_proves_nothing(
    deployment: Callable[[Shelf], Hop[Any, Any]], bundle: Bundle, tmp_path: Path
) -> None:
    none = {name: getattr(bundle.golden, name)[:0] for name in type(bundle.golden).__slots__}
    written = write_bundle(replace(bundle, path=tmp_path / "v1.0", golden=replace(bundle.golden, **none)))
    with pytest.raises(ParityError, match="no golden cases"):
        deployment(Shelf.of(str(written.path)))
