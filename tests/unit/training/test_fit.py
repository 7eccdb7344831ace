import math

import numpy as np
import pytest
import torch

from serve_app.errors import ConfigError
from serve_app.model.architectures import ARCHITECTURES, SignalNetwork, build_architecture
from serve_app.training.fit import EpochReport, FitSettings, correct_prior, fit, predict, reproducible
from serve_app.training.samples import Samples

SETTINGS = FitSettings(seed=3, epochs=4, batch_size=32, learning_rate=1e-2, threads=1)


def samples(n: int, seed: int, rate: float = 0.2) -> Samples:
    """Windows whose first feature says which are positive, with noise."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < rate).astype(np.float32)
    windows = rng.normal(0, 1, (n, 5, 3)).astype(np.float32)
    windows[:, :, 0] += labels[:, None]
    return Samples(windows, rng.integers(0, 2, n), labels, np.arange(n).astype("datetime64[us]"))


def network(name: str = "mlp") -> SignalNetwork:
    window = {"lookback_window": 5} if name == "mlp" else {}
    return build_architecture(name, {"n_features": 3, "num_assets": 2, **window})


def fitted(settings: FitSettings, name: str = "mlp") -> SignalNetwork:
    with reproducible(settings.seed, settings.threads):
        module = network(name)
    fit(module, samples(200, 1), samples(100, 2), settings)
    return module


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_seed_gives_the_same_weights_to_the_bit(name: str) -> None:
    first = fitted(SETTINGS, name).state_dict()
    torch.rand(7)  # whatever was drawn before must not matter
    second = fitted(SETTINGS, name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_seed_gives_other_weights() -> None:
    other = FitSettings(seed=4, epochs=4, batch_size=32, learning_rate=1e-2, threads=1)
    assert not torch.equal(fitted(SETTINGS).output_layer.weight, fitted(other).output_layer.weight)


def test_fitting_leaves_torch_as_it_found_it() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fitted(SETTINGS)
    assert torch.equal(torch.rand(3), expected)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_a_fit_learns_and_keeps_the_epoch_with_the_lowest_validation_loss() -> None:
    module, seen, validation = network(), list[EpochReport](), samples(200, 2)
    settings = FitSettings(seed=3, epochs=60, batch_size=32, learning_rate=1e-2, patience=5, threads=1)
    report = fit(module, samples(400, 1), validation, settings, seen.append)
    assert tuple(seen) == report.history
    assert report.best_epoch == min(report.history, key=lambda epoch: epoch.validation_loss).epoch
    assert len(report.history) == report.best_epoch + settings.patience
    probabilities = predict(module, validation)
    assert probabilities[validation.labels == 1].mean() > 2 * probabilities[validation.labels == 0].mean()
    assert not module.training


def test_probabilities_meet_the_true_base_rate_though_positives_were_weighted() -> None:
    train, validation = samples(2000, 1, rate=0.1), samples(1000, 2, rate=0.1)
    module = network()
    report = fit(module, train, validation, FitSettings(epochs=8, learning_rate=3e-3, threads=1))
    assert report.positive_weight == pytest.approx(9, rel=0.2)
    assert predict(module, validation).mean() == pytest.approx(validation.labels.mean(), abs=0.03)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_prior_correction_lowers_every_logit_by_the_log_of_the_weight(name: str) -> None:
    module, some = network(name), samples(6, 5)
    before = predict(module, some)
    correct_prior(module, 4.0)
    after = predict(module, some)
    logit_shift = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(logit_shift, -math.log(4.0), atol=1e-5)


@pytest.mark.parametrize(("rate", "message"), [(0.0, "0 of 50"), (1.0, "50 of 50")])
def test_a_training_period_of_one_class_is_refused(rate: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(network(), samples(50, 1, rate), samples(50, 2), SETTINGS)


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 validation windows"):
        fit(network(), samples(50, 1), samples(0, 2), SETTINGS)


def test_a_fit_that_diverges_is_an_error_and_no_model() -> None:
    broken = samples(50, 2)
    broken.windows[:] = np.nan
    with pytest.raises(ConfigError, match="no epoch had a finite validation loss"):
        fit(network(), samples(50, 1), broken, SETTINGS)
