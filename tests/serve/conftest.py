"""One local Ray for the whole tier: both models once, and the graph in every topology around them."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import ray
from ray import serve
from ray.serve import Application

from deployments import processes, profile
from deployments.autoscaling import Backlog
from deployments.bundles import Held, Shelf
from deployments.graph import build_app, build_model
from deployments.keys import API_KEYS
from deployments.model import ModelDeployment
from deployments.preprocess import PreprocessDeployment
from deployments.strategy import StrategyDeployment
from serve_app.batches import ActionBatch, PositionBatch, PredictionBatch, WindowBatch
from serve_app.config import AppConfig, Auth, ModelAppConfig, ModelConfig, Topology
from serve_app.model import load_bundle, write_bundle
from serve_app.model.repository import Repository
from serve_app.pipeline import preprocess_of
from serve_app.preprocess import TECH23
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, Feature
from serve_app.types import Runtime
from tests.factories import on_other_features
from tests.waiting import free_port, wait_for

ROOT = Path(__file__).parents[2]
PRODUCTION = str(ROOT / "models/v1.0")
CANDIDATE = str(ROOT / "models/v1.1")

# What a row's sentiment makes of the faulty model; scaled, it is the value less 0.5.
POISON, SLOW, DEADLY = 0.9, 0.1, 0.8


class SabotagedPreprocess(PreprocessDeployment):
    """Preprocess whose RSI looks back over ten bars, and says that it is RSI_14."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        short = {**TECH23.definitions, "RSI_14": Feature(11, lambda frame: ta.rsi(frame[CLOSE], 10))}
        feature_set = replace(TECH23, definitions=short)
        self._stages = Held(shelf, lambda bundle: replace(preprocess_of(bundle), feature_set=feature_set))


class SlowStrategy(StrategyDeployment):
    """Takes a while for each batch."""

    async def run(self, batch: PositionBatch, backlog: Backlog) -> ActionBatch:
        await asyncio.sleep(1.5)
        return await super().run(batch, backlog)


class FaultyModel(ModelDeployment):
    """The real model, which fails on rows whose sentiment says so."""

    def __init__(self, shelf: Shelf, config: ModelAppConfig, notes: str) -> None:
        super().__init__(shelf, config)
        self._grave = Path(notes) / "died"
        self._slow_batches = Path(notes) / "slow"

    async def run(self, batch: WindowBatch, backlog: Backlog) -> PredictionBatch:
        sentiments = [round(0.5 + float(value), 3) for value in batch.windows[:, -1, -3]]
        if POISON in sentiments:
            raise ValueError("a row that no model can digest")
        if SLOW in sentiments:
            with self._slow_batches.open("a") as file:
                file.write(f"{len(batch)}\n")
            await asyncio.sleep(0.3)
        if DEADLY in sentiments and not self._grave.exists():
            self._grave.touch()
            os._exit(1)
        return await super().run(batch, backlog)


KEYS = "key-of-desk-a, key-of-desk-b"


def app_config(
    topology: Topology,
    share: float,
    deadline_ms: float = 20_000,
    auth: Auth = Auth.NONE,
    model: ModelConfig = ModelConfig(),  # noqa: B008  frozen
) -> AppConfig:
    return AppConfig.model_validate(
        {
            "topology": topology,
            "model": model,
            "variants": {
                "production": {"bundle": PRODUCTION, "deadline_ms": deadline_ms},
                "candidate": {"bundle": CANDIDATE, "deadline_ms": deadline_ms},
            },
            "router": {"auth": auth, "assignment": {"candidate_share": share, "salt": "tests"}},
        }
    )


@pytest.fixture(scope="package")
def http_port() -> Iterator[int]:
    """A Ray of our own, with Serve on a free port."""
    port, run_id = free_port(), secrets.token_hex(8)
    with ExitStack() as ends:
        patch = ends.enter_context(pytest.MonkeyPatch.context())
        # Ray's processes inherit these: one to find them by, one to keep it readable there.
        patch.setenv(processes.RUN_ID, run_id)
        patch.setenv("SPT_NOENV", "1")
        # Handles call by gRPC, as they do under `signalgraph up`; plain actor calls are used in tests/e2e.
        patch.setenv("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
        for name, value in profile.SPARING.items():
            patch.setenv(name, value)
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="sg-", dir="/tmp"))
        ends.callback(processes.end, run_id)
        ends.callback(ray.shutdown)
        ray.init(
            address="local",
            num_cpus=32,  # logical: what replicas reserve
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        )
        ends.callback(serve.shutdown)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port


@pytest.fixture(scope="package")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the faulty model writes what it did: sizes of slow batches, and whether it has died."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="package")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions v1.0, v1.1, v1.2, and v1.3, which does not compute what its golden cases say."""
    folder = tmp_path_factory.mktemp("repository")
    for path in (PRODUCTION, CANDIDATE):
        Repository(folder).add(Path(path))
    bundle = load_bundle(CANDIDATE)
    other = replace(bundle.golden, logits=bundle.golden.logits + 1)
    for name, golden in (("v1.2", bundle.golden), ("v1.3", other)):
        config = bundle.config.model_copy(update={"model_version": name})
        write_bundle(replace(bundle, path=folder / name, config=config, golden=golden))
    return folder


@pytest.fixture(scope="package")
def graphs(http_port: int, notes: Path, repository: Path) -> dict[str, str]:
    """Every topology under a route of its own; the candidate is the faulty model, and answers all in `faulty`."""
    twice: dict[str, Any] = {"num_replicas": 2, "max_ongoing_requests": 16, "ray_actor_options": {"num_cpus": 0.1}}
    models = {"production": str(repository / "v1.0"), "candidate": str(repository / "v1.1")}
    production, other = (ModelAppConfig.model_validate({"variant": v, "bundle": b}) for v, b in models.items())
    faulty = serve.deployment(name="model", **twice)(FaultyModel)
    candidate = faulty.bind(Shelf.of(models["candidate"]), other, str(notes))
    configs = {str(topology): app_config(topology, share=0.0) for topology in Topology}
    configs["faulty"] = app_config(Topology.STAGED, share=1.0)
    configs["hasty"] = app_config(Topology.MODEL_REMOTE, share=1.0, deadline_ms=150)
    configs["eager"] = app_config(Topology.FUSED, share=0.0, model=ModelConfig(runtime=Runtime.TORCH))
    configs["locked"] = app_config(Topology.MODEL_REMOTE, share=0.0, auth=Auth.API_KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(API_KEYS, KEYS)
        applications = {name: build_app(config) for name, config in configs.items()}
    serve.run_many(
        [
            serve.RunTarget(build_model(production), "model-production", route_prefix=None),
            serve.RunTarget(candidate, "model-candidate", route_prefix=None),
            *(serve.RunTarget(one, name, f"/{name}") for name, one in applications.items()),
        ]
    )
    urls = {name: f"http://127.0.0.1:{http_port}/{name}" for name in configs}
    for url in urls.values():
        wait_until_ready(f"{url}/v2/health/ready")
    return urls


@contextmanager
def deployed(app: Application, name: str, http_port: int) -> Iterator[str]:
    """Run a graph under a route of its own until the block ends; what idles takes its share of the cores."""
    serve.run(app, name=name, route_prefix=f"/{name}")
    yield f"http://127.0.0.1:{http_port}/{name}"
    serve.delete(name)


def staged_with(stage: str, other: type) -> Application:
    """Return the staged graph with another deployment in place of one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"deployments.graph.{stage}", other)
        return build_app(app_config(Topology.STAGED, share=0.0))


@pytest.fixture(scope="module")
def sabotaged(graphs: dict[str, str], http_port: int) -> Iterator[str]:
    """The staged graph with a feature that is not what training computed. It never becomes ready."""
    assert "staged" in graphs  # with the models that it asks
    with deployed(staged_with("PreprocessDeployment", SabotagedPreprocess), "sabotaged", http_port) as url:
        yield url


@pytest.fixture(scope="module")
def unhurried(graphs: dict[str, str], http_port: int) -> Iterator[str]:
    """The staged graph with a strategy that takes a while; its models are there already."""
    assert "staged" in graphs
    with deployed(staged_with("StrategyDeployment", SlowStrategy), "unhurried", http_port) as url:
        yield url


@pytest.fixture(scope="module")
def other_features(http_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A graph on a model whose features come from the client."""
    bundle = on_other_features(load_bundle(PRODUCTION), tmp_path_factory.mktemp("models") / "v4.0")
    variants = {"production": {"bundle": str(bundle.path), "deadline_ms": 20_000}}
    config = AppConfig.model_validate({"topology": Topology.FUSED, "variants": variants})
    with deployed(build_app(config), "other", http_port) as url:
        wait_until_ready(f"{url}/v2/health/ready")
        yield url


def wait_until_ready(url: str) -> None:
    ask = partial(httpx2.get, url, timeout=60)
    wait_for(lambda: ask().status_code == 200, 60, lambda: ask().text)


@pytest.fixture(scope="package")
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as http:
        yield http
