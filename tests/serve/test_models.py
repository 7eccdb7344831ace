"""What a graph makes of models that are not like the shipped ones, or not what they say."""

import asyncio
from typing import Any

import httpx2
import numpy as np
import pytest

from serve_app.config import ModelConfig
from serve_app.model import load_bundle
from serve_app.pipeline import Pipeline, local_stages
from serve_app.types import Bars, FeatureRows, SignalRequest
from tests.factories import documented, every_form, features_of, probability_of, window
from tests.serve.conftest import PRODUCTION
from tests.waiting import wait_for


def answer(client: httpx2.Client, url: str, bars: Bars) -> dict[str, Any]:
    path, body = every_form("IBM", window(bars))["columns"]
    document: dict[str, Any] = client.post(url + path, json=body).json()
    return document


def test_the_configuration_chooses_the_runtime_and_the_probability_stays_the_same(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    graph, network = (probability_of(answer(client, graphs[name], bars["IBM"])) for name in ("fused", "eager"))
    assert network == pytest.approx(graph, abs=1e-6)


def test_a_feature_of_another_period_keeps_the_graph_from_being_ready_and_is_named(
    sabotaged: str, client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    url = f"{sabotaged}/v2/health/ready"
    wait_for(lambda: "ParityError" in client.get(url).text, 60, lambda: client.get(url).text)
    refused = client.get(url)
    assert refused.status_code == 503
    reason = refused.json()["variants"]["production"]["reason"]
    assert reason.startswith("ParityError: golden case 0: feature RSI_14 in row 0 is ")
    told = answer(client, sabotaged, bars["IBM"])
    assert (told["status"], told["reason"], told["prediction_probability"]) == ("abstain", "model_unavailable", None)


def test_a_model_on_other_features_answers_features_and_says_what_it_needs(
    other_features: str, client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    names = [f"alpha_{i}" for i in range(23)]
    values = features_of(bars["IBM"]).values
    body = {"symbol": "IBM", "features": {"columns": names, "rows": values.tolist()}}
    served = client.post(f"{other_features}/v1/signals", json=body).json()
    bundle = load_bundle(PRODUCTION)
    pipeline = Pipeline(bundle, local_stages(bundle, ModelConfig()))
    row = pipeline.row(SignalRequest("IBM", FeatureRows(bundle.config.feature_list, np.asarray(values))))
    [expected] = asyncio.run(pipeline.run([row]))
    assert probability_of(served) == pytest.approx(expected.probability, abs=1e-6)
    assert served["model_version"] == "v4.0"
    refused = client.post(f"{other_features}/v1/signals", json=every_form("IBM", window(bars["IBM"]))["columns"][1])
    assert (refused.status_code, refused.json()["code"]) == (422, "features_needed")
    assert refused.json()["detail"] == {"features": names, "fallback_action": "HOLD"}


def test_its_documented_examples_can_be_sent_as_they_stand(other_features: str, client: httpx2.Client) -> None:
    examples = documented(client.get(f"{other_features}/openapi.json").json())
    assert len(examples) >= 4
    for path, name, example in examples:
        response = client.post(other_features + path, json=example)
        assert response.status_code == 200, (path, name, response.text)
