"""Which replicas a router asks for a bundle, and what it makes anew, as releases follow each other."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from deployments.autoscaling import Backlog
from deployments.bundles import Shelf
from deployments.lanes import Lanes
from serve_app.config import AppConfig, Topology
from serve_app.errors import Overloaded
from serve_app.model import Bundle, write_bundle
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline
from serve_app.router.releases import Release
from serve_app.router.slots import slots
from serve_app.types import Bars, VariantName
from tests.factories import RowwiseModel, real_requests

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE
VERSIONS = 8


@pytest.fixture
def digests(bundle: Bundle, tmp_path: Path) -> list[str]:
    """Of versions v1.0, v1.1 and so on."""
    versions = [f"v1.{number}" for number in range(VERSIONS)]
    configs = [bundle.config.model_copy(update={"model_version": version}) for version in versions]
    made = [replace(bundle, path=tmp_path / config.model_version, config=config) for config in configs]
    return [write_bundle(one).digest for one in made]


def lanes_of(folder: Path, topology: Topology) -> Lanes:
    variants = {"production": {"bundle": str(folder / "v1.0")}}
    config = AppConfig.model_validate({"topology": topology, "variants": variants})
    return Lanes(config, Shelf.of(str(folder / "v1.0")), None, "router-a")


class Cluster:
    """The applications of models: which bundles each was told to load, and who was asked."""

    def __init__(self) -> None:
        self.loaded: set[tuple[str, str]] = set()
        self.asked: list[str] = []

    def handle(self, _: str, application: str, **__: Any) -> "ModelHandle":
        return ModelHandle(self, application)


class ModelHandle:
    """One application, by a handle."""

    def __init__(self, cluster: Cluster, application: str) -> None:
        self._cluster = cluster
        self._application = application

    def options(self, **_: Any) -> "ModelHandle":
        return self

    def remote(self, batch: Any, _: Backlog) -> Any:
        self._cluster.asked.append(self._application)
        return RowwiseModel().run(batch)

    def broadcast(self, method: str, *digests: str) -> "ModelHandle":
        self._answers: list[Any] = [{self._application: 0.5}] if method == "memory" else []
        self._cluster.loaded.update((self._application, digest) for digest in digests)
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        return self._answers


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(serve, "get_deployment_handle", cluster.handle)
    return cluster


def switch(lanes: Lanes, pairs: list[tuple[str, str]]) -> dict[VariantName, Pipeline]:
    """Put the last pair of production and candidate into force, as a router does."""
    release, places = Release(production=pairs[-1][0], candidate=pairs[-1][1]), slots(pairs)
    asyncio.run(lanes.load(release.digests().values(), places))
    return {name: lane.pipeline for name, lane in lanes.of(release, places).items()}


def asked(cluster: Cluster, pipeline: Pipeline, bars: Mapping[str, Bars]) -> str:
    """Return the application that a pipeline asks."""
    asyncio.run(pipeline.run([pipeline.row(request) for request in real_requests(bars, 1)]))
    return cluster.asked[-1]


def history(digests: list[str]) -> list[tuple[str, str]]:
    """Production and candidate of each epoch: a model comes back as a candidate, and as production, elsewhere."""
    a, b, c = digests[:3]
    promoted_twice = [(a, b), (b, a), (b, c), (c, b)]
    a_returns, both_undone = [(c, a), (a, c), (c, a)], [(b, c)]
    return [*promoted_twice, *a_returns, *both_undone, (a, b)]


@pytest.mark.parametrize("epochs", range(1, 10))
def test_a_router_that_followed_asks_the_replicas_that_a_new_one_asks(
    digests: list[str], cluster: Cluster, bars: Mapping[str, Bars], tmp_path: Path, epochs: int
) -> None:
    pairs = history(digests)[:epochs]
    followed, new = lanes_of(tmp_path, Topology.MODEL_REMOTE), lanes_of(tmp_path, Topology.MODEL_REMOTE)
    for epoch in range(1, epochs):
        switch(followed, pairs[:epoch])
    serving, loaded = switch(followed, pairs), frozenset(cluster.loaded)
    fresh = switch(new, pairs)
    for name, pipeline in serving.items():
        application = asked(cluster, pipeline, bars)
        assert application == asked(cluster, fresh[name], bars) == f"model-{followed.places()[name]}"
        assert (application, pipeline.bundle.digest) in loaded
    assert len(set(followed.places().values())) == 2


def test_what_serves_is_not_made_again_though_others_were_asked_for_since(
    digests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(Model, "warm_up", lambda _, bundle, __: made.append(bundle.digest))
    lanes = lanes_of(tmp_path, Topology.FUSED)
    pairs = [(digests[0], digests[1])]
    first = switch(lanes, pairs)

    async def replays() -> None:
        for digest in digests:
            await lanes.pipeline(digest, None)

    asyncio.run(replays())
    assert sorted(made) == sorted(digests)
    made.clear()
    assert switch(lanes, pairs) == first
    promoted = switch(lanes, [*pairs, (digests[1], digests[0])])
    assert promoted[PRODUCTION].stages is first[CANDIDATE].stages
    assert made == []


def test_a_candidate_that_hangs_leaves_production_half_of_the_places_in_the_router(
    digests: list[str], bars: Mapping[str, Bars], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("deployments.lanes.room", lambda: 4.0)
    monkeypatch.setattr(Model, "run", never)
    lanes = lanes_of(tmp_path, Topology.FUSED)
    pairs = [(digests[0], digests[1])]
    switch(lanes, pairs)
    serving = lanes.of(Release(production=pairs[0][0], candidate=pairs[0][1]), slots(pairs))

    async def refused(name: VariantName) -> int:
        """How many of ten callers are told to come back, while the others still wait."""
        lane = serving[name]
        row = lane.pipeline.row(real_requests(bars, 1)[0])
        calls = [asyncio.ensure_future(lane.submit([row])) for _ in range(10)]
        done, waiting = await asyncio.wait(calls, timeout=0.1)
        assert all(isinstance(call.exception(), Overloaded) for call in done)
        for call in waiting:
            call.cancel()
        return len(done)

    assert asyncio.run(refused(CANDIDATE)) == 8
    assert asyncio.run(refused(PRODUCTION)) == 0


def test_all_stages_elsewhere_are_asked_how_full_their_nodes_are(
    digests: list[str], cluster: Cluster, tmp_path: Path
) -> None:
    lanes = lanes_of(tmp_path, Topology.MODEL_REMOTE)
    switch(lanes, [(digests[0], digests[1])])
    assert asyncio.run(lanes.memory()) == {"model-production": 0.5, "model-candidate": 0.5}
    assert cluster.asked == []  # nobody decided anything for it
