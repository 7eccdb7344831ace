"""What every system is asked: the same question in its own form, and environments that are pinned."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.batch import arrow_body, json_body
from benchmarks.peers import venvs
from benchmarks.peers.systems import HAND_MADE, PEERS
from benchmarks.peers.venvs import HERE, CannotInstall, python_of
from benchmarks.systems import CEILINGS, OURS, System, bars_body, features_body
from benchmarks.workload import TOLERANCE, N, questions, reference, wrong
from deployments.config_check import faults_of_file
from serve_app.schemas import Limits, decode_signal, parse_arrow, parse_signal
from serve_app.types import Bars, FeatureRows, SignalRequest

PINNED = [path.parent.name for path in sorted(HERE.glob("*/requirements.txt"))]
LIMITS = Limits(max_body_bytes=2**20, max_bars=1000, max_batch_requests=1)


def numbers_in(document: object) -> list[float]:
    if isinstance(document, dict):
        return [number for value in document.values() for number in numbers_in(value)]
    if isinstance(document, list):
        return [number for value in document for number in numbers_in(value)]
    return [document] if isinstance(document, float) else []


@pytest.mark.parametrize("system", [*PEERS, *HAND_MADE, *OURS], ids=lambda system: system.name)
def test_every_system_is_asked_about_the_same_numbers(system: System) -> None:
    for question in questions()[:4]:
        asked = numbers_in(json.loads(system.body(question)))
        assert asked == question.features.ravel().tolist()


def test_the_questions_differ_and_ours_are_what_the_api_takes() -> None:
    assert len({features_body(question) for question in questions()}) == len(questions()) == N
    for question in questions()[:4]:
        features, bars = (decode_signal(body(question), LIMITS) for body in (features_body, bars_body))
        assert features is not None
        assert bars is not None
        assert isinstance(features.history, FeatureRows)
        assert isinstance(bars.history, Bars)
        np.testing.assert_array_equal(features.history.values, question.features)
        assert len(bars.history) == reference().config.bars_needed


def test_a_batch_asks_the_same_in_arrow_and_in_json() -> None:
    asked = questions()[:3]
    names = reference().config.feature_list
    tables = parse_arrow(arrow_body(asked), replace(LIMITS, max_batch_requests=3), lambda _: names)
    documents = [parse_signal(one, LIMITS) for one in json.loads(json_body(asked))["requests"]]
    for one, other in zip(tables, documents, strict=True):
        assert isinstance(one, SignalRequest)
        assert isinstance(one.history, FeatureRows)
        assert isinstance(other.history, FeatureRows)
        assert (one.symbol, one.history.columns) == (other.symbol, other.history.columns)
        np.testing.assert_array_equal(one.history.values, other.history.values)


@pytest.mark.parametrize("off", [0.0, TOLERANCE / 2, 2 * TOLERANCE, float("nan")])
def test_a_wrong_probability_is_found(off: float) -> None:
    right = [question.probability for question in questions()]
    answers: Sequence[float] = [*right[:-1], right[-1] + off]
    assert (wrong(answers, questions()) is None) == (off < TOLERANCE)


def test_an_answer_too_few_is_found() -> None:
    assert "63 answers for 64 questions" in str(wrong([q.probability for q in questions()][:-1], questions()))


@pytest.mark.parametrize("peer", PINNED)
def test_every_package_of_a_peer_is_pinned(peer: str) -> None:
    pins = (HERE / peer / "requirements.txt").read_text().split()
    assert pins
    assert all(pin.count("==") == 1 for pin in pins)


def test_every_peer_has_its_folder_and_its_environment() -> None:
    assert {peer.name for peer in (*PEERS, *HAND_MADE)} == {path.parent.name for path in HERE.glob("*/app.py")}
    assert set(PINNED) == {peer.name for peer in (*PEERS, *HAND_MADE) if not peer.name.startswith("ray_")}


def test_packages_that_cannot_be_installed_leave_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer/requirements.txt").write_text("not a requirement at all\n")
    monkeypatch.setattr(venvs, "HERE", tmp_path)
    monkeypatch.setattr(venvs, "ENVIRONMENTS", tmp_path / "made")
    for _ in range(2):
        with pytest.raises(CannotInstall, match="not a requirement"):
            python_of("peer")


@pytest.mark.usefixtures("in_the_clone")
@pytest.mark.parametrize("system", [*OURS, *CEILINGS], ids=lambda system: system.name)
def test_our_configurations_are_fine(system: System) -> None:
    (config,) = (Path(part) for part in system.command if part.endswith(".yaml"))
    assert faults_of_file(config) == []
