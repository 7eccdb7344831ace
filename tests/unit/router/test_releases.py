"""Releases and their ledger."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from serve_app.chain import sha256
from serve_app.config import AssignmentConfig
from serve_app.errors import HistoryAltered, ReleaseRefused
from serve_app.router.changes import promoted, split
from serve_app.router.releases import Author, Ledger, Release, Step
from serve_app.router.slots import slots
from serve_app.types import Thresholds, VariantName
from tests.unit.ledgers import Memory

OLD, NEW, NEWER = (f"sha256:{digit * 64}" for digit in "abc")
ADA = Author("ada", "because", datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1))))
SEED = Release(production=OLD, candidate=NEW)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def ledger(memory: Memory) -> Ledger:
    ledger = Ledger(memory)
    ledger.seed(SEED, ADA)
    return ledger


def promote(ledger: Ledger) -> Release:
    return ledger.change(Step.PROMOTE, promoted, ADA).release


def give(ledger: Ledger, share: float | None = None, **pins: VariantName) -> Release:
    return ledger.change(Step.SPLIT, split(share, None, pins or None), ADA).release


def test_the_yaml_seeds_the_first_epoch_and_never_again(memory: Memory) -> None:
    first = Ledger(memory).seed(SEED, ADA)
    assert (first.number, first.epoch, first.step, first.release) == (1, 1, Step.SEED, SEED)
    assert first.at == datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
    assert Ledger(memory).seed(Release(production=NEWER), ADA) == first
    assert len(memory.lines) == 1


def test_a_split_changes_what_it_names_and_nothing_else(ledger: Ledger) -> None:
    give(ledger, 0.2, IBM=VariantName.CANDIDATE)
    now = give(ledger, 0.3)
    assert now.assignment == AssignmentConfig(candidate_share=0.3, pins={"IBM": VariantName.CANDIDATE})
    assert (now.production, now.candidate) == (OLD, NEW)
    assert [entry.epoch for entry in ledger.entries()] == [1, 2, 3]


def test_promotion_swaps_the_two_and_the_old_one_answers_nobody(ledger: Ledger) -> None:
    strict = Thresholds(signal_threshold=0.9)
    ledger.change(Step.SPLIT, lambda r: r.changed(thresholds={VariantName.CANDIDATE: strict}, shadow=True), ADA)
    give(ledger, 0.5, AAPL=VariantName.CANDIDATE)
    now = promote(ledger)
    assert (now.production, now.candidate, now.shadow, now.assignment.asks_candidate) == (NEW, OLD, False, False)
    assert now.assignment == AssignmentConfig()
    assert now.thresholds == {VariantName.PRODUCTION: strict}


def test_rollback_first_ends_the_experiment_then_the_promotion(ledger: Ledger) -> None:
    promote(ledger)
    give(ledger, 0.25)
    ended = ledger.rollback(ADA).release
    assert (ended.production, ended.candidate, ended.assignment.asks_candidate) == (NEW, OLD, False)
    undone = ledger.rollback(ADA).release
    assert (undone.production, undone.candidate, undone.assignment.asks_candidate) == (OLD, NEW, False)
    before = len(ledger.entries())
    with pytest.raises(ReleaseRefused, match="nothing to roll back"):
        ledger.rollback(ADA)
    assert len(ledger.entries()) == before


def test_rollback_goes_back_through_every_promotion_that_is_in_force(ledger: Ledger) -> None:
    promote(ledger)
    ledger.change(Step.CANDIDATE, lambda release: release.quiet().changed(candidate=NEWER), ADA)
    assert promote(ledger).production == NEWER
    assert [ledger.rollback(ADA).release.production for _ in range(2)] == [NEW, OLD]
    promote(ledger)
    assert ledger.rollback(ADA).release.production == OLD
    with pytest.raises(ReleaseRefused):
        ledger.rollback(ADA)


def test_a_release_that_nobody_could_serve_is_not_recorded(memory: Memory) -> None:
    def only_old(release: Release) -> None:
        if release.production != OLD:
            raise ReleaseRefused("not loaded")

    ledger = Ledger(memory, only_old)
    ledger.seed(SEED, ADA)
    with pytest.raises(ReleaseRefused, match="not loaded"):
        promote(ledger)
    assert ledger.newest() == 1


def test_a_failure_is_recorded_and_changes_nothing(ledger: Ledger) -> None:
    give(ledger, 0.1)
    failed = ledger.fail("BundleCorrupt: weights", ADA)
    assert (failed.epoch, failed.error, failed.step) == (2, "BundleCorrupt: weights", Step.FAILED)
    assert failed.release == ledger.entries()[-2].release
    assert promote(ledger).production == NEW
    assert ledger.entries()[-1].epoch == 3


@pytest.mark.parametrize(
    "change",
    [
        promoted,
        split(0.1, None, None),
        split(None, None, {"IBM": VariantName.CANDIDATE}),
        lambda release: release.changed(shadow=True),
        lambda release: release.changed(thresholds={VariantName.CANDIDATE: Thresholds()}),
    ],
)
def test_without_a_candidate_nothing_can_be_asked_of_it(memory: Memory, change: Callable[[Release], Release]) -> None:
    ledger = Ledger(memory)
    ledger.seed(Release(production=OLD), ADA)
    with pytest.raises(ReleaseRefused, match="no candidate"):
        ledger.change(Step.SPLIT, change, ADA)
    assert len(memory.lines) == 1


def test_a_share_that_is_none_is_refused_and_said(ledger: Ledger) -> None:
    with pytest.raises(ReleaseRefused, match="less than or equal to 1"):
        give(ledger, 1.5)


@pytest.mark.parametrize(("who", "why"), [("", "because"), ("ada", "  "), ("ada\nbob", "because")])
def test_every_change_says_who_and_why(who: str, why: str) -> None:
    with pytest.raises(ReleaseRefused, match="must be one line of readable text"):
        Author(who, why, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("pairs", "places"),
    [
        ("a-", "a0"),
        ("ab", "a0 b1"),
        ("aa", "a0"),
        ("ab ba bc", "a0 b1 c0"),  # promoted, then another candidate: where the old production was
        ("ab ba bc cb ca", "a1 b1 c0"),  # the first one again: it lives where production is not
        ("ab ba bc bc ab", "a0 b1 c0"),  # undone: each is still where it was
    ],
)
def test_production_never_moves_and_a_candidate_lives_where_production_does_not(pairs: str, places: str) -> None:
    found = slots((pair[0], None if pair[1] == "-" else pair[1]) for pair in pairs.split())
    order = list(VariantName)
    assert " ".join(f"{digest}{order.index(place)}" for digest, place in sorted(found.items())) == places


def test_an_empty_ledger_cannot_be_changed(memory: Memory) -> None:
    with pytest.raises(ReleaseRefused, match="start the graph once"):
        promote(Ledger(memory))


@pytest.mark.parametrize(
    ("alter", "number"),
    [
        (lambda lines: [lines[0].replace(b"because", b"becausE"), *lines[1:]], 1),
        (lambda lines: [*lines[:2], lines[2].replace(b"because", b"becausE")], 3),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], json.dumps(json.loads(lines[1]), indent=1).encode(), lines[2]], 2),
    ],
)
def test_an_altered_ledger_is_named_by_its_line(
    ledger: Ledger, memory: Memory, alter: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    give(ledger, 0.1)
    give(ledger, 0.2)
    memory.lines = alter(memory.lines)
    for use in (ledger.entries, lambda: promote(ledger)):
        with pytest.raises(HistoryAltered, match=f"line {number} of the release ledger"):
            use()


def test_a_ledger_that_an_earlier_release_wrote_is_read_and_continued(memory: Memory) -> None:
    """It knew no guarded promotion: its lines have no `plan`, and their hashes are of what they say."""
    ledger = Ledger(memory)
    document = json.loads(ledger.seed(SEED, ADA).line)
    del document["release"]["plan"], document["sha256"]
    seal = sha256(json.dumps(document, ensure_ascii=False).encode())
    memory.lines[:] = [json.dumps({**document, "sha256": seal}, ensure_ascii=False).encode()]
    give(ledger, 0.5)
    assert [entry.epoch for entry in Ledger(memory).entries()] == [1, 2]
    memory.lines[0] = memory.lines[0].replace(b"because", b"becausE")
    with pytest.raises(HistoryAltered, match="line 1"):
        ledger.entries()


def test_authors_at_the_same_time_follow_one_another(ledger: Ledger) -> None:
    def work(name: str) -> None:
        for i in range(10):
            author = replace(ADA, who=name)
            ledger.change(Step.SPLIT, split(i / 10, None, None), author)

    workers = [threading.Thread(target=work, args=(name,)) for name in ("ada", "bob", "eve")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    entries = ledger.entries()
    assert [entry.epoch for entry in entries] == list(range(1, 32))
    for name in ("ada", "bob", "eve"):
        mine = [entry.release.assignment.candidate_share for entry in entries if entry.who == name][-10:]
        assert mine == [i / 10 for i in range(10)]
