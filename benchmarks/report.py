"""The tables of a run, as Markdown: medians, and ratios within the run."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks import record
from benchmarks.peers.systems import FASTAPI_SCRIPT, HAND_MADE, PEERS, RAY_NAIVE
from benchmarks.record import CONNECTIONS, FULL, Record, latency, per_s
from benchmarks.systems import BARE_ECHO, FUSED, MODEL_REMOTE, STAGED

MODEL = "bare model forward"
"""The system that is no service."""

Value = Callable[[Record], float | None]


def _of(system: str, measure: str) -> Value:
    return lambda run: run.median(system, measure)


def _best(measure: str) -> Value:
    names = [peer.name for peer in PEERS]
    return lambda run: run.best(names, measure)


def _hand_made(measure: str) -> Value:
    names = [system.name for system in HAND_MADE]
    return lambda run: run.best(names, measure)


_P50 = latency(50, 1)
_RATIOS: Sequence[tuple[str, Value, Value]] = (
    ("`fused` / best peer, requests/s at 64", _of(FUSED.name, per_s(64)), _best(per_s(64))),
    ("`fused` / FastAPI script, requests/s at 64", _of(FUSED.name, per_s(64)), _of(FASTAPI_SCRIPT.name, per_s(64))),
    (
        "`fused` / bare echo on the ingress, requests/s at 64",
        _of(FUSED.name, per_s(64)),
        _of(BARE_ECHO.name, per_s(64)),
    ),
    ("`fused` / fastest hand-made service, requests/s at 64", _of(FUSED.name, per_s(64)), _hand_made(per_s(64))),
    ("`fused` / FastAPI script, p50 at 1", _of(FUSED.name, _P50), _of(FASTAPI_SCRIPT.name, _P50)),
    ("`model_remote` / best peer, requests/s at 64", _of(MODEL_REMOTE.name, per_s(64)), _best(per_s(64))),
    ("`staged` / best peer, requests/s at 64", _of(STAGED.name, per_s(64)), _best(per_s(64))),
    ("`staged` / best peer, requests/s at 128", _of(STAGED.name, per_s(128)), _best(per_s(128))),
    ("`staged` / naive Ray graph, requests/s at 64", _of(STAGED.name, per_s(64)), _of(RAY_NAIVE.name, per_s(64))),
    ("`staged` / naive Ray graph, requests/s at 128", _of(STAGED.name, per_s(128)), _of(RAY_NAIVE.name, per_s(128))),
    ("`staged` / FastAPI script, p50 at 1", _of(STAGED.name, _P50), _of(FASTAPI_SCRIPT.name, _P50)),
    ("500 symbols as Arrow / bare forward, rows/s", _of(FUSED.name, record.ARROW), _of(MODEL, record.FORWARD)),
    ("500 symbols as JSON / bare forward, rows/s", _of(FUSED.name, record.JSON), _of(MODEL, record.FORWARD)),
    ("raw bars / features, requests/s at 64", _of(FUSED.name, record.BARS), _of(FUSED.name, per_s(FULL))),
    ("open loop at half capacity, p99 / p50 at 1", _of(FUSED.name, record.HALF_P99), _of(FUSED.name, _P50)),
    (
        "p99 of the 200s, twice / once the capacity",
        _of(FUSED.name, record.TWICE_P99),
        _of(FUSED.name, record.CAPACITY_P99),
    ),
)
_OVERLOAD = (
    record.HALF_P99,
    record.CAPACITY_P99,
    record.TWICE_P99,
    record.TWICE_GOOD,
    record.TWICE_REFUSED,
    record.TWICE_OTHER,
    record.RECOVERY_S,
)


def _shown(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,.0f}" if value >= 100 else f"{round(value, 3):.3g}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield _row(*head)
    yield "|---" * len(head) + "|"
    yield from (_row(*cells) for cells in rows)


def systems_table(run: Record) -> Iterator[str]:
    """Yield throughput against connections, and latency where nothing waits and where much does."""
    measures = [*map(per_s, CONNECTIONS), _P50, latency(99, 1), latency(50, FULL), latency(99, FULL), record.RATE]
    head = ["", *map(str, CONNECTIONS), "p50 ms at 1", "p99", "p50 ms at 64", "p99", "open loop, p99 < 100 ms"]
    names = [name for name in run.measured() if run.median(name, per_s(FULL)) is not None]
    yield from _table(
        head, ([run.titles[name], *(_shown(run.median(name, measure)) for measure in measures)] for name in names)
    )


def ratios(run: Record) -> Iterator[tuple[str, float]]:
    """Yield every ratio that the run has both sides of."""
    for name, of, to in _RATIOS:
        numerator, denominator = of(run), to(run)
        if numerator is not None and denominator:
            yield name, numerator / denominator


def markdown(run: Record) -> str:
    """Return the whole report."""
    ratio_rows = ([name, f"{ratio:.2f}"] for name, ratio in ratios(run))
    overload = ([measure, _shown(run.median(FUSED.name, measure))] for measure in _OVERLOAD)
    parts = [
        f"{run.where}.",
        "Requests/s against connections (wrk, closed loop), latency, and the highest rate of an open loop:",
        "\n".join(systems_table(run)),
        "Ratios within the run:",
        "\n".join(_table(["", "ratio"], ratio_rows)),
        "`fused` in an open loop, whose rate no slow answer lowers:",
        "\n".join(_table(["", "median"], overload)),
        *(f"Not measured: {fault}" for fault in run.faults),
    ]
    return "\n\n".join(parts) + "\n"
