"""Where the stages run changes nothing: one bar, one probability, whatever the topology and the form."""

import asyncio

import httpx2
import pytest
from ray import serve

from serve_app.config import ModelConfig, Topology
from serve_app.model import load_bundle
from serve_app.pipeline import Pipeline, local_stages
from serve_app.types import Bars, SignalRequest
from tests.factories import documented, every_form, probability_of, window
from tests.serve.conftest import PRODUCTION
from tests.waiting import wait_for

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")


@pytest.fixture(scope="module")
def in_process() -> Pipeline:
    bundle = load_bundle(PRODUCTION)
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))


def expected(pipeline: Pipeline, symbol: str, bars: Bars) -> float:
    (outcome,) = asyncio.run(pipeline.run([pipeline.row(SignalRequest(symbol, bars))]))
    assert outcome.probability is not None
    return outcome.probability


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("topology", Topology)
def test_every_form_gives_the_probability_that_the_pipeline_gives_in_process(
    topology: Topology,
    symbol: str,
    graphs: dict[str, str],
    client: httpx2.Client,
    bars: dict[str, Bars],
    in_process: Pipeline,
) -> None:
    right = expected(in_process, symbol, window(bars[symbol]))
    for form, (path, body) in every_form(symbol, window(bars[symbol])).items():
        response = client.post(graphs[topology] + path, json=body)
        assert response.status_code == 200, (form, response.text)
        assert probability_of(response.json()) == pytest.approx(right, abs=1e-6), form


def test_identical_requests_get_bit_for_bit_the_same_probability_in_every_topology(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars], in_process: Pipeline
) -> None:
    for symbol in SYMBOLS:
        path, body = every_form(symbol, window(bars[symbol], ago=10))["columns"]
        answers = {topology: client.post(graphs[topology] + path, json=body).json() for topology in Topology}
        assert {probability_of(a) for a in answers.values()} == {
            expected(in_process, symbol, window(bars[symbol], ago=10))
        }
        assert len({a["bundle_digest"] for a in answers.values()}) == 1


def test_an_answer_says_which_bundle_and_epoch_and_how_long_each_stage_took(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    path, body = every_form("AAPL", window(bars["AAPL"]))["rows"]
    answer = client.post(graphs[Topology.STAGED] + path, json=body).json()
    bundle = load_bundle(PRODUCTION)
    assert (answer["model_version"], answer["bundle_digest"]) == (bundle.version, bundle.digest)
    assert (answer["variant"], answer["epoch"], answer["status"]) == ("production", 1, "ok")
    assert answer["timestamp"] == "2013-03-01T00:00:00Z"
    assert list(answer["timings_ms"]) == ["queue", "preprocess", "model", "strategy"]
    assert all(value >= 0 for value in answer["timings_ms"].values())


def test_the_documented_examples_can_be_sent_as_they_stand(graphs: dict[str, str], client: httpx2.Client) -> None:
    url = graphs[Topology.FUSED]
    examples = documented(client.get(f"{url}/openapi.json").json())
    assert len(examples) >= 4
    for path, name, example in examples:
        response = client.post(url + path, json=example)
        assert response.status_code == 200, (path, name, response.text)


def test_a_router_is_proven_before_it_is_asked(unhurried: str, client: httpx2.Client, bars: dict[str, Bars]) -> None:
    path, body = every_form("IBM", window(bars["IBM"]))["columns"]
    wait_for(lambda: client.get(f"{unhurried}/v2/health/live").status_code != 404, 60, lambda: "no route")
    first = client.post(unhurried + path, json=body)
    assert (first.status_code, first.json()["status"]) == (200, "ok"), first.text


def test_the_monitor_knows_how_full_the_nodes_of_routers_and_stages_are(
    graphs: dict[str, str], client: httpx2.Client
) -> None:
    (address,) = client.get(f"{graphs[Topology.STAGED]}/v1/monitor").json()["memory"]
    application = graphs[Topology.STAGED].rpartition("/")[2]
    for name in ("preprocess", "strategy"):
        told = serve.get_deployment_handle(name, application).broadcast("memory").results(timeout_s=30)
        assert told
        assert all(list(one) == [address] and 0 < one[address] < 1 for one in told)
