"""Rows a second of `/v1/signals:batch`, as Arrow and as JSON, against the bare forward: `python -m benchmarks.batch`.

One connection at a time keeps one router busy, whose model has one thread; the bare forward has one thread, too.
"""

import json
from collections.abc import Sequence
from itertools import cycle, islice
from statistics import median

import numpy as np
import pyarrow as pa

from benchmarks.closed_loop import Load, closed_loop
from benchmarks.process import free_port, post
from benchmarks.systems import FUSED, WrongAnswer, features_body
from benchmarks.workload import Question, questions, reference, wrong
from serve_app.config import ModelConfig
from serve_app.doctor.speed import rows_per_s
from serve_app.pipeline import model_of
from serve_app.schemas import STREAM

ROWS = 500
ROUNDS = 5
SECONDS = 4.0


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


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    asked = list(islice(cycle(questions()), ROWS))
    model = model_of(reference(), ModelConfig())
    rates: dict[str, list[float]] = {"bare forward": [], "Arrow": [], "JSON": []}
    with FUSED.running(free_port()) as single:
        url = f"{single.url}:batch"
        loads = {"Arrow": Load(url, [arrow_body(asked)], STREAM), "JSON": Load(url, [json_body(asked)])}
        for load in loads.values():
            check(load, asked)
        for _ in range(ROUNDS):
            rates["bare forward"].append(rows_per_s(reference(), model, ROWS))
            for name, load in loads.items():
                rates[name].append(ROWS * closed_loop(load, 1, SECONDS).per_s)
    forward = median(rates["bare forward"])
    for name, found in rates.items():
        print(f"{name:12} {median(found):8,.0f} rows/s  {median(found) / forward:.2f} of the bare forward")


if __name__ == "__main__":
    main()
