from pathlib import Path

import pytest

from serve_app.doctor import Verdict
from serve_app.errors import BundleNotFound
from serve_app.model import Bundle, Golden
from serve_app.model.bundle import SCALER
from serve_app.preflight import checklist
from serve_app.preflight.subject import Found
from serve_app.types import Bars
from tests.factories import CANDIDATE, PRODUCTION, ROOT, in_torch, on_other_features
from tests.unit.preflight.bundles import checks, go_through, written

LOCAL = ROOT / "configs/local.yaml"
OF_THE_STAGES = ("refusals", "bad row", "no model", "load")


@pytest.mark.parametrize("path", [PRODUCTION, CANDIDATE])
@pytest.mark.parametrize("with_all", [False, True])
def test_the_shipped_bundles_may_be_deployed(path: Path, with_all: bool, bars: dict[str, Bars]) -> None:
    found = go_through(path, bars=bars, config=LOCAL) if with_all else go_through(path)
    assert [item.title for item in found.items] == list(checklist.CHECKLIST)
    said = {name: check.verdict for name, check in checks(found).items()}
    assert Verdict.FAIL not in said.values(), found
    # What this version or this checklist cannot settle is somebody's to decide.
    assert said["alerting"] is said["load"] is Verdict.WARN
    assert (said["parity"], said["monitoring"], said["exposure"]) == (Verdict.OK if with_all else Verdict.WARN,) * 3
    assert found.verdict is Verdict.WARN


def test_names_are_unique_and_what_is_ok_needs_no_advice_and_what_is_not_has_some(tmp_path: Path) -> None:
    for path, config in ((PRODUCTION, None), (PRODUCTION, LOCAL), (CANDIDATE, tmp_path / "none.yaml")):
        found = go_through(path, config=config)
        assert len(checks(found)) == len(found.checks)
        for check in found.checks:
            assert bool(check.advice) == (check.verdict is not Verdict.OK), check


def test_the_verdict_of_an_item_is_the_worst_of_its_checks() -> None:
    for item in go_through(PRODUCTION).items:
        verdicts = {check.verdict for check in item.checks}
        assert item.verdict is next(verdict for verdict in reversed(Verdict) if verdict in verdicts)


def test_where_no_bundle_is_nothing_is_examined(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound):
        go_through(tmp_path)


def test_of_a_changed_bundle_the_first_line_says_so_and_the_others_that_they_were_not_examined(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = written(bundle, tmp_path)
    content = bytearray((path / SCALER).read_bytes())
    content[10] ^= 1
    (path / SCALER).write_bytes(bytes(content))
    found = go_through(path, config=LOCAL)
    first, *others = found.checks
    assert (first.name, first.verdict, SCALER in first.finding) == ("files", Verdict.FAIL, True)
    assert {(check.verdict, check.finding[:12]) for check in others} == {(Verdict.WARN, "not examined")}
    assert (found.digest, found.verdict, len(found.items)) == (None, Verdict.FAIL, len(checklist.CHECKLIST))


def test_stages_that_cannot_be_built_are_said_once_and_what_needs_them_is_not_examined(
    bundle: Bundle, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    some = dict(list(bundle.weights.items())[:-1])
    said = checks(go_through(written(in_torch(bundle), tmp_path, weights=some), bars=bars))
    assert (said["model"].verdict, "Missing key" in said["model"].finding) == (Verdict.FAIL, True)
    for name in (*OF_THE_STAGES, "golden", "parity"):
        assert (said[name].verdict, said[name].finding[:12]) == (Verdict.WARN, "not examined"), said[name]
    assert said["rollback"].finding.startswith("nothing was in production before")


def test_features_of_another_release_are_found(bundle: Bundle, tmp_path: Path) -> None:
    config = bundle.config.model_copy(update={"feature_set": "tech99.v1"})
    said = checks(go_through(written(bundle, tmp_path, config=config)))
    assert (said["features"].verdict, "tech99.v1" in said["features"].finding) == (Verdict.FAIL, True)


def test_without_golden_cases_nothing_is_asked(bundle: Bundle, tmp_path: Path) -> None:
    said = checks(go_through(written(bundle, tmp_path, golden=Golden.nothing())))
    assert said["golden"].verdict is Verdict.FAIL
    for name in OF_THE_STAGES:
        assert "no golden cases" in said[name].finding


def test_a_scale_of_zero_shows_wherever_it_spoils_something_and_not_in_the_log(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scaler = bundle.scaler.model_copy(update={"scale": [0.0, *bundle.scaler.scale[1:]]})
    said = checks(go_through(written(bundle, tmp_path, scaler=scaler)))
    for name in ("numbers", "golden", "windows", "output", "bad row", "load"):
        assert said[name].verdict is Verdict.FAIL, said[name]
    assert said["bad row"].finding.endswith("; 12 abstained")
    assert caplog.records == []


@pytest.mark.parametrize("with_bars", [False, True])
def test_a_bundle_that_takes_features_only_is_examined_like_any_other(
    bundle: Bundle, tmp_path: Path, bars: dict[str, Bars], with_bars: bool
) -> None:
    path = on_other_features(bundle, tmp_path / "v4.0").path
    found = go_through(path, bars=bars if with_bars else None)
    said = checks(found)
    assert found.verdict is Verdict.WARN, found
    for name in ("features", "parity", "handling"):
        assert said[name].finding.startswith("takes features only")
    assert said["parity"].verdict is Verdict.WARN
    assert "features_needed" in said["refusals"].finding
    assert {said[name].verdict for name in ("golden", "windows", "refusals", "bad row", "no model")} == {Verdict.OK}


def test_a_look_that_meets_what_it_did_not_expect_is_a_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: object) -> Found:
        raise PermissionError(13, "Permission denied", "manifest.json")

    monkeypatch.setattr(checklist, "CHECKLIST", {"One": {"files": unreadable}})
    (check,) = go_through(PRODUCTION).checks
    assert (check.verdict, check.finding) == (Verdict.FAIL, "[Errno 13] Permission denied: 'manifest.json'")
