import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.router import FIRST_EPOCH, Assignment
from serve_app.router.assignment import position_of
from serve_app.types import VariantName
from tests.factories import ROOT
from tests.sizes import size

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE
SYMBOLS = [f"SYM{i:03d}" for i in range(size("symbols of an assignment"))]
SHARES = [round(0.05 * step, 2) for step in range(21)]

# Settled for ever: another version or another machine that disagrees moves symbols between variants.
POSITIONS = [
    ("AAPL", "signalgraph", 0.9198413048940705),
    ("GOOG", "signalgraph", 0.8180419601971507),
    ("IBM", "signalgraph", 0.6686748469113387),
    ("MSFT", "signalgraph", 0.2467234848227493),
    ("AAPL", "ab-test-1", 0.2661664487495766),
    ("BRK.B", "ab-test-1", 0.45463932722723965),
    ("ÖBB", "ab-test-1", 0.5009371739054862),
    ("AAPL", "", 0.21748994030787283),
]

IN_ANOTHER_PROCESS = """
import json, sys
from serve_app.router.assignment import position_of
print(json.dumps([position_of(symbol, salt) for symbol, salt, _ in json.loads(sys.argv[1])]))
"""


def candidates(share: float, salt: str = "signalgraph") -> set[str]:
    assignment = Assignment(share, salt)
    return {symbol for symbol in SYMBOLS if assignment.variant(symbol) is CANDIDATE}


@pytest.mark.parametrize(("symbol", "salt", "position"), POSITIONS)
def test_the_position_of_a_symbol_is_settled_for_ever(symbol: str, salt: str, position: float) -> None:
    assert position_of(symbol, salt) == position


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_with_another_hash_seed_agrees(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, json.dumps(POSITIONS)]
    said = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [position for _, _, position in POSITIONS]


@given(symbol=st.text(max_size=64), salt=st.text(max_size=20))
def test_every_symbol_lies_from_zero_to_less_than_one(symbol: str, salt: str) -> None:
    assert 0 <= position_of(symbol, salt) < 1


def test_salt_and_symbol_do_not_run_into_each_other() -> None:
    assert position_of("bc", "a") != position_of("c", "ab")
    assert position_of("1A", "") != position_of("A", "1")


@pytest.mark.parametrize(("share", "variant"), [(0.0, PRODUCTION), (1.0, CANDIDATE)])
def test_a_share_of_none_or_all_is_exactly_that(share: float, variant: VariantName) -> None:
    assignment = Assignment(share, "signalgraph")
    assert {assignment.variant(symbol) for symbol in SYMBOLS} == {variant}


def test_a_symbol_goes_to_the_candidate_from_just_above_its_position_on() -> None:
    position = position_of("IBM", "signalgraph")
    assert Assignment(position, "signalgraph").variant("IBM") is PRODUCTION
    assert Assignment(float(np.nextafter(position, 1)), "signalgraph").variant("IBM") is CANDIDATE


@pytest.mark.parametrize("salt", ["signalgraph", "ab-test-1", ""])
def test_a_growing_share_only_adds_symbols(salt: str) -> None:
    by_share = [candidates(share, salt) for share in SHARES]
    assert all(smaller <= larger for smaller, larger in pairwise(by_share))
    assert len(by_share[0]) == 0
    assert len(by_share[-1]) == len(SYMBOLS)
    assert len({len(chosen) for chosen in by_share}) == len(SHARES), "a step of 5 % added nobody"


def test_symbols_are_spread_evenly_by_almost_every_salt() -> None:
    band = 1.63 / np.sqrt(len(SYMBOLS))  # Kolmogorov, 99 %
    steps = np.arange(len(SYMBOLS) + 1) / len(SYMBOLS)
    within = []
    for salt in range(300):
        positions = np.sort([position_of(symbol, str(salt)) for symbol in SYMBOLS])
        distance = max(np.abs(positions - steps[:-1]).max(), np.abs(positions - steps[1:]).max())
        within.append(distance < band)
    # Of 300 salts 297 are expected; 290 or fewer would come by chance once in thousands of draws.
    assert sum(within) > 290


@pytest.mark.parametrize("share", SHARES)
def test_the_candidate_gets_its_share_within_the_kolmogorov_band(share: float) -> None:
    given_share = len(candidates(share, "ab-test-1")) / len(SYMBOLS)
    assert given_share == pytest.approx(share, abs=1.63 / np.sqrt(len(SYMBOLS)))


def test_another_salt_draws_other_symbols() -> None:
    here, there = candidates(0.3, "one"), candidates(0.3, "two")
    assert len(here & there) / len(SYMBOLS) == pytest.approx(0.09, abs=0.05)  # 0.3², as of independent draws


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variant", VariantName)
def test_a_pin_comes_first_whatever_the_share(share: float, variant: VariantName) -> None:
    assert Assignment(share, "signalgraph", {"IBM": variant}).variant("IBM") is variant


def test_a_pin_moves_no_other_symbol() -> None:
    pinned = Assignment(0.3, "signalgraph", {"SYM000": CANDIDATE, "SYM001": PRODUCTION})
    others = SYMBOLS[2:]
    assert {s for s in others if pinned.variant(s) is CANDIDATE} == candidates(0.3) & set(others)


def test_pins_are_of_exact_symbols() -> None:
    assert Assignment(0.0, "signalgraph", {"IBM": CANDIDATE}).variant("ibm") is PRODUCTION


def test_the_first_epoch_is_one() -> None:
    assert FIRST_EPOCH == 1
