"""Each CPU configuration comes up with plain `serve run` and answers every form of the same question alike."""

import asyncio

import httpx2
import pytest

from serve_app.config import ModelConfig
from serve_app.model import load_bundle
from serve_app.pipeline import Pipeline, local_stages
from serve_app.types import Bars, SignalRequest, VariantName
from tests.e2e.conftest import ROOT, serve_run
from tests.factories import every_form, probability_of, window

BUNDLES = {VariantName.PRODUCTION: "models/v1.0", VariantName.CANDIDATE: "models/v1.1"}


def in_process(variant: VariantName, symbol: str, bars: Bars) -> float:
    bundle = load_bundle(ROOT / BUNDLES[variant])
    pipeline = Pipeline(bundle, local_stages(bundle, ModelConfig()))
    (outcome,) = asyncio.run(pipeline.run([pipeline.row(SignalRequest(symbol, bars))]))
    assert outcome.probability is not None
    return outcome.probability


def check_every_form(url: str, symbol: str, variant: VariantName, bars: Bars) -> None:
    right = in_process(variant, symbol, bars)
    for form, (path, body) in every_form(symbol, bars).items():
        response = httpx2.post(url + path, json=body, timeout=30)
        assert response.status_code == 200, (form, response.text)
        assert probability_of(response.json()) == pytest.approx(right, abs=1e-6), form


@pytest.mark.parametrize("config", ["configs/local.yaml", "configs/fused.yaml", "configs/releases.yaml"])
def test_a_configuration_with_one_model_answers_with_it(config: str, bars: dict[str, Bars]) -> None:
    with serve_run(config) as url:
        for symbol in ("AAPL", "IBM"):
            check_every_form(url, symbol, VariantName.PRODUCTION, window(bars[symbol]))


@pytest.mark.parametrize(("symbol", "variant"), [("MSFT", VariantName.PRODUCTION), ("IBM", VariantName.CANDIDATE)])
def test_the_experiment_answers_with_the_variant_of_the_symbol(
    ab_test: str, symbol: str, variant: VariantName, bars: dict[str, Bars]
) -> None:
    check_every_form(ab_test, symbol, variant, window(bars[symbol]))
    _, body = every_form(symbol, window(bars[symbol]))["columns"]
    answer = httpx2.post(ab_test + "/v1/signals", json=body, timeout=30).json()
    bundle = load_bundle(ROOT / BUNDLES[variant])
    assert (answer["variant"], answer["model_version"]) == (variant, bundle.version)
    assert answer["bundle_digest"] == bundle.digest
