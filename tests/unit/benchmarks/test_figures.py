"""The README shows the figures of the runs that are kept, and no others."""

import json
from pathlib import Path

from benchmarks.cost import lines

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks/results"


def test_the_readme_holds_the_tables_of_the_kept_runs() -> None:
    section = (ROOT / "README.md").read_text().split("## Compare with other servers")[1].split("\n## ")[0]
    kept = (RESULTS / "bench.md").read_text()
    cost = json.loads((RESULTS / "cost.json").read_text())
    shown = [*kept.splitlines(), *lines(cost["us_by_process"], cost["us_by_part"])]
    rows = [line for line in shown if line.startswith("|")]
    assert len(rows) > 40
    assert [line for line in section.splitlines() if line.startswith("|")] == rows
    machine = kept.splitlines()[0]
    assert machine in section


def test_its_pictures_are_there() -> None:
    for name in ("bench.png", "load_test.png"):
        assert f"benchmarks/results/{name}" in (ROOT / "README.md").read_text()
        assert (RESULTS / name).stat().st_size > 10_000
