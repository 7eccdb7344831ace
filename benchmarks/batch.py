"""Rows a second of `/v1/signals:batch`, as Arrow and as JSON, and of the bare forward pass."""

import json
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import pyarrow as pa

from benchmarks import record
from benchmarks.closed_loop import Load, closed_loop
from benchmarks.process import post
from benchmarks.systems import WrongAnswer, features_body
from benchmarks.workload import Question, questions, reference, wrong
from serve_app.config import ModelConfig
from serve_app.doctor.speed import rows_per_s
from serve_app.pipeline import model_of
from serve_app.schemas import STREAM

ROWS = 500


def arrow_body(asked: Sequence[Question]) -> bytes:
    """Return questions as one long table of features."""
    lengths = [len(question.features) for question in asked]
    features = np.concatenate([question.features for question in asked])
    columns = {
        "symbol": np.repeat([question.symbol for question in asked], lengths),
        "request": np.repeat(np.arange(len(asked)), lengths),
        **dict(zip(asked[0].columns, features.T, strict=True)),
    }
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def json_body(asked: Sequence[Question]) -> bytes:
    """Return questions as JSON."""
    return b'{"requests": [' + b",".join(map(features_body, asked)) + b"]}"


def check(load: Load, asked: Sequence[Question]) -> None:
    """Ask once, and compare. Raises WrongAnswer."""
    results = json.loads(post(load.url, load.bodies[0], load.content_type))["results"]
    if fault := wrong([result["prediction_probability"] for result in results], asked):
        raise WrongAnswer(f"{load.content_type}: {fault}")


def batches(load: Load, seconds: float) -> dict[str, float]:
    """Measure rows a second of calls with many, on one connection: one router, and its model's one thread.

    Raises WrongAnswer.
    """
    asked = list(islice(cycle(questions()), ROWS))
    url = f"{load.url}:batch"
    measured = {}
    for name, body, kind in ((record.ARROW, arrow_body, STREAM), (record.JSON, json_body, load.content_type)):
        one = Load(url, [body(asked)], kind)
        check(one, asked)
        measured[name] = ROWS * closed_loop(one, 1, seconds).per_s
    return measured


def forward() -> dict[str, float]:
    """Measure the bare forward pass, on one thread of this process: the ceiling of the hardware."""
    return {record.FORWARD: rows_per_s(reference(), model_of(reference(), ModelConfig()), ROWS)}
