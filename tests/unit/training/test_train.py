import dataclasses
import itertools

import numpy as np
import pytest
import torch

from serve_app.errors import ConfigError
from serve_app.model import LabelDefinition
from serve_app.model.architectures import build_architecture
from serve_app.training.fit import FitSettings
from serve_app.training.presets import PRESETS
from serve_app.training.train import TrainedModel, TrainSettings, train

from .market import random_market, shaken

SETTINGS = TrainSettings(
    architecture="gru",
    label=LabelDefinition(0.02, 0.02, 8),
    dimensions={"gru_hidden_dim": 8, "gru_num_layers": 1, "attention_dim": 4},
    fit=FitSettings(epochs=2, threads=1),
)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return train(SETTINGS, random_market())


def same_weights(a: TrainedModel, b: TrainedModel) -> bool:
    other = b.module.state_dict()
    return all(torch.equal(weights, other[key]) for key, weights in a.module.state_dict().items())


def test_symbols_are_numbered_in_order_and_one_without_training_windows_is_left_out(model: TrainedModel) -> None:
    assert model.symbol_to_id == {"ABC": 0, "ZED": 1}
    assert list(model.left_out) == ["NEW"]
    assert "80 bars, 0 of them labelled by" in model.left_out["NEW"]


def test_training_twice_gives_the_same_model_to_the_bit(model: TrainedModel) -> None:
    again = train(SETTINGS, random_market())
    assert same_weights(model, again)
    assert (again.threshold, again.metrics) == (model.threshold, model.metrics)


def test_bars_after_the_validation_period_change_neither_weights_nor_scaler_nor_threshold(model: TrainedModel) -> None:
    end = model.cuts.validation_end
    other = train(SETTINGS, {symbol: shaken(bars, end) for symbol, bars in random_market().items()})
    assert same_weights(model, other)
    np.testing.assert_array_equal(other.scaler.mean, model.scaler.mean)
    assert other.threshold == model.threshold
    assert other.metrics["test"] != model.metrics["test"]


def test_the_dimensions_rebuild_the_network_that_the_weights_fit(model: TrainedModel) -> None:
    rebuilt = build_architecture(model.settings.architecture, model.dimensions)
    rebuilt.load_state_dict(model.module.state_dict())
    assert not model.module.training


def test_the_periods_follow_each_other_with_an_embargo_between(model: TrainedModel) -> None:
    times = [
        (np.datetime64(r.start[:-1]), np.datetime64(r.end[:-1])) for r in model.ranges.values() if r.start and r.end
    ]
    embargo = np.timedelta64(SETTINGS.label.horizon_bars, "h")
    assert list(model.ranges) == ["train", "validation", "test"]
    assert all(later[0] - earlier[1] > embargo for earlier, later in itertools.pairwise(times))
    assert all(model.metrics[name]["n"] == model.ranges[name].windows for name in ("validation", "test"))


def test_settings_that_cannot_be_trained_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="tech99"):
        train(dataclasses.replace(SETTINGS, feature_set="tech99"), random_market())
    with pytest.raises(ConfigError, match="hidden"):
        train(dataclasses.replace(SETTINGS, dimensions={"hidden": 3}), random_market())
    with pytest.raises(ConfigError, match="no symbol has a complete window"):
        train(SETTINGS, {symbol: bars.tail(60) for symbol, bars in random_market().items()})


@pytest.mark.parametrize("version", PRESETS)
def test_a_preset_names_an_architecture_and_dimensions_that_exist(version: str) -> None:
    quick = dataclasses.replace(PRESETS[version], fit=FitSettings(epochs=1, threads=1))
    assert train(quick, random_market(500)).report.n_parameters <= 100_000
