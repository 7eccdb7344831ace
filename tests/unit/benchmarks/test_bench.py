"""What a run of the benchmark makes of its readings: medians, ratios, tables and a picture."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as bench
from benchmarks import record, systems, visit
from benchmarks.closed_loop import Load
from benchmarks.open_loop import Answers
from benchmarks.peers.systems import HAND_MADE, PEERS
from benchmarks.picture import draw
from benchmarks.process import DidNotStart
from benchmarks.record import CONNECTIONS, FULL, Record, latency, per_s
from benchmarks.report import MODEL, markdown, ratios
from benchmarks.systems import CEILINGS, FUSED, OURS, WrongAnswer
from benchmarks.workload import questions

TITLES = {MODEL: "the model", **{system.name: system.title for system in (*PEERS, *HAND_MADE, *OURS, *CEILINGS)}}
LOAD = Load("http://127.0.0.1:1/v1/signals", [b"{}"])


def empty(rounds: int = 3) -> Record:
    return Record("a machine", "2026-01-02 03:04 UTC", "c0ffee", rounds, TITLES)


def closed(value: float) -> dict[str, float]:
    measures = (measure for n in CONNECTIONS for measure in (per_s(n), latency(50, n), latency(99, n)))
    return dict.fromkeys(measures, value)


def full() -> Record:
    """Every peer answers 100 a second, every hand-made service 500, all of ours 250."""
    run = empty()
    for number in range(1, 4):
        for group, value in ((PEERS, 100.0), (HAND_MADE, 500.0), (OURS, 250.0), (CEILINGS, 1000.0)):
            for system in group:
                run.add(number, system.name, closed(value + number))
        run.add(number, FUSED.name, {record.ARROW: 600.0, record.JSON: 400.0, record.BARS: 50.0, record.HALF_P99: 20.0})
        run.add(number, MODEL, {record.FORWARD: 1000.0})
    seen = {"rows_by_batch_size": {"1": 10, "30": 90}, "stages_ms": {"queue": {"p50": 1.0}, "model": {"p50": 2.0}}}
    run.batches = {system.name: seen for system in OURS}
    return run


def test_a_median_is_that_of_the_rounds() -> None:
    run = empty()
    for number, value in enumerate((1.0, 9.0, 2.0)):
        run.add(number, "x", {"m": value})
    assert run.median("x", "m") == 2.0
    assert run.median("x", "other") is None
    assert run.best(["x", "nobody"], "m") == 2.0
    assert run.best(["nobody"], "m") is None


def test_ratios_compare_ours_with_the_best_of_each_kind() -> None:
    found = dict(ratios(full()))
    assert found["`fused` / best peer, requests/s at 64"] == pytest.approx(252 / 102)
    assert found["`fused` / fastest hand-made service, requests/s at 64"] == pytest.approx(252 / 502)
    assert found["`fused` / bare echo on the ingress, requests/s at 64"] == pytest.approx(252 / 1002)
    assert found["500 symbols as Arrow / bare forward, rows/s"] == pytest.approx(0.6)
    assert found["raw bars / features, requests/s at 64"] == pytest.approx(50 / 252)
    assert "p99 of the 200s, twice / once the capacity" not in found  # neither was measured


def test_the_report_has_every_system_that_was_measured_and_says_which_was_not() -> None:
    run = full()
    run.faults.append("round 2, MLServer: no answer")
    report = markdown(run)
    assert all(f"| {system.title} |" in report for system in (*PEERS, *HAND_MADE, *OURS, *CEILINGS))
    assert "Not measured: round 2, MLServer: no answer" in report
    assert "| the model |" not in report  # it answers no requests
    assert "nan" not in report
    assert "medians of 3 rounds" in report


def test_what_took_no_time_is_shown_as_nothing() -> None:
    run = full()
    run.readings = [one for one in run.readings if one.measure != record.RECOVERY_S]
    run.add(1, FUSED.name, {record.RECOVERY_S: 7e-7})
    assert f"| {record.RECOVERY_S} | 0 |" in markdown(run)


def test_a_run_of_some_systems_has_a_report_and_a_picture_of_those(tmp_path: Path) -> None:
    run = empty(1)
    run.add(1, FUSED.name, closed(7.0))
    assert FUSED.title in markdown(run)
    assert not list(ratios(run))
    draw(run, tmp_path / "some.png")
    draw(full(), tmp_path / "all.png")
    assert (tmp_path / "some.png").stat().st_size < (tmp_path / "all.png").stat().st_size


def answers(asked: int, **counts: int) -> Answers:
    status = [int(code[1:]) for code, n in counts.items() for _ in range(n)]
    return Answers(asked, status, [float(i) for i in range(len(status))])


def openly(monkeypatch: pytest.MonkeyPatch, of_rate: Callable[[float], Answers]) -> list[float]:
    """Let an open loop find what a function of the rate says; return the rates that are asked."""
    rates: list[float] = []

    def open_loop(_: Load, rate: float, __: float, connections: int = 1) -> Answers:
        assert connections > 0
        rates.append(rate)
        return of_rate(rate)

    monkeypatch.setattr(visit, "open_loop", open_loop)
    return rates


def test_the_ladder_ends_at_the_first_rate_that_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Answers(2, [200, 200], [1.0, 2 * visit.BOUND_MS])
    rates = openly(monkeypatch, lambda rate: slow if rate > 600 else answers(20, s200=20))
    assert visit.ladder(LOAD, 1000) == {record.RATE: 500.0}
    assert rates == [250.0, 500.0, 750.0]


@pytest.mark.parametrize("bad", [answers(20, s200=19, s503=1), answers(20, s200=19)], ids=["refused", "lost"])
def test_a_rate_at_which_anything_is_not_answered_does_not_count(monkeypatch: pytest.MonkeyPatch, bad: Answers) -> None:
    openly(monkeypatch, lambda _: bad)
    assert visit.ladder(LOAD, 1000) == {record.RATE: 0.0}


def test_overload_tells_refusals_from_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {500: answers(10, s200=10), 1000: answers(10, s200=10), 2000: answers(20, s200=10, s429=4, s503=3, s500=2)}
    openly(monkeypatch, lambda rate: seen[int(rate)])
    monkeypatch.setattr(visit, "_recovery", lambda *_: 0.5)
    found = visit.overload(LOAD, 1000)
    assert found[record.TWICE_REFUSED] == pytest.approx(7 / 20)
    assert found[record.TWICE_OTHER] == 3  # two 500s, and one that nobody answered
    assert found[record.TWICE_GOOD] == pytest.approx(10 / visit.OPEN_S)
    assert found[record.RECOVERY_S] == 0.5


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(run: Record, number: int, system: object, _: float) -> None:
        if system is OURS[1]:
            raise DidNotStart("no answer")
        run.add(number, FUSED.name, closed(5.0))

    monkeypatch.setattr(bench, "visit", measured)
    names = [argument for system in OURS[:2] for argument in ("--only", system.name)]
    out = tmp_path / "results" / "bench"
    done = CliRunner().invoke(bench.main, ["--rounds", "1", "--out", str(out), *names])
    assert done.exit_code == 1
    assert "no answer" in done.output
    document = json.loads(out.with_suffix(".json").read_text())
    assert len(document["faults"]) == 1
    assert {one["system"] for one in document["readings"]} == {MODEL, FUSED.name}
    assert per_s(FULL) in {one["measure"] for one in document["readings"]}
    assert out.with_suffix(".png").exists()


@pytest.mark.parametrize("answer", [b'{"prediction_probability": null}', b"{}", b"busy"])
def test_an_answer_without_a_probability_is_a_wrong_answer(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(systems, "post", lambda *_: answer)
    with pytest.raises(WrongAnswer, match="without a probability"):
        FUSED.check(LOAD, questions()[:1])
