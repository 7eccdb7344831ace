"""How each peer is started and asked."""

import json
from functools import partial
from typing import Any

from benchmarks.peers.venvs import HERE, python_of
from benchmarks.systems import System, features_body
from benchmarks.workload import Question, reference


def _records_body(question: Question) -> bytes:
    records = [dict(zip(question.columns, row, strict=True)) for row in question.features.tolist()]
    return json.dumps({"symbol": question.symbol, "historical_data": records}).encode()


def _tensor_body(question: Question) -> bytes:
    features = {
        "name": "features",
        "datatype": "FP64",
        "shape": [1, *question.features.shape],
        "data": question.features.ravel().tolist(),
    }
    asset = reference().symbol_to_id[question.symbol]
    asset_id = {"name": "asset_id", "datatype": "INT64", "shape": [1, 1], "data": [asset]}
    return json.dumps({"inputs": [features, asset_id]}).encode()


def _list_body(question: Question) -> bytes:
    return b'{"requests": [' + features_body(question) + b"]}"


def _tensor_probability(answer: bytes) -> float:
    outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
    return float(outputs["prediction_probability"][0])


def _list_probability(answer: bytes) -> float:
    (first,) = json.loads(answer)
    return float(first["prediction_probability"])


def _peer(name: str, title: str, *command: str, own: bool = True, **changes: Any) -> System:
    environment = {"PYTHONPATH": f"{HERE}:{HERE / name}", **changes.pop("environment", {})}
    if own:
        changes["python"] = partial(python_of, name)
    return System(name, title, ("{python}", *command), environment=environment, **changes)


_UVICORN = ("-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
_RAY = (str(HERE / "ray_run.py"), "app:app", "{port}")

FASTAPI_SCRIPT = _peer(
    "fastapi_pandas", "FastAPI script, pandas and torch a request", *_UVICORN, path="/predict", body=_records_body
)
RAY_NAIVE = _peer("ray_naive", "Ray Serve, naive graph, default settings", *_RAY, own=False)
PEERS = (
    FASTAPI_SCRIPT,
    _peer("litserve", "LitServe, batches of 64", str(HERE / "litserve" / "app.py"), "{port}"),
    _peer(
        "mlserver",
        "MLServer, adaptive batching",
        "-m",
        "mlserver.cli.main",
        "start",
        str(HERE / "mlserver"),
        path="/v2/models/signals/infer",
        body=_tensor_body,
        probability=_tensor_probability,
        environment={"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{other}"},
    ),
    _peer(
        "bentoml",
        "BentoML, adaptive batching",
        *("-m", "bentoml", "serve", "app:Signals", "--host", "127.0.0.1", "--port", "{port}"),
        *("--working-dir", str(HERE / "bentoml")),
        body=_list_body,
        probability=_list_probability,
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    RAY_NAIVE,
)
"""What one writes first, and the servers that one would take."""
HAND_MADE = (
    _peer("fastapi_workers", "FastAPI, numpy and ONNX Runtime, 2 workers", *_UVICORN, "--workers", "2"),
    _peer(
        "ray_serve_batch",
        "Ray Serve, one deployment, `serve.batch`, fast flags",
        *_RAY,
        own=False,
        environment={
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        },
    ),
)
"""The least that answers this one request, as fast as it can be: no variants, monitor, timings or deadlines."""
