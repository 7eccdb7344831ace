import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.doctor import Check, Verdict
from serve_app.model import Bundle
from serve_app.preflight.deployment import EVERY_INTERFACE
from tests.factories import CANDIDATE, PRODUCTION, ROOT
from tests.unit.preflight.bundles import check, checks, go_through, with_metadata

Document = dict[str, Any]
LOCAL = ROOT / "configs/local.yaml"


def args(document: Document) -> Document:
    found: Document = document["applications"][0]["args"]
    return found


def spoilt(folder: Path, spoil: Callable[[Document], object]) -> Path:
    """The local configuration with something changed."""
    document = copy.deepcopy(yaml.safe_load(LOCAL.read_text()))
    spoil(document)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def said_of(config: Path, path: Path = PRODUCTION) -> Mapping[str, Check]:
    return checks(go_through(path, config=config))


# The configuration.


def test_a_configuration_says_as_what_a_bundle_is_served() -> None:
    assert check(PRODUCTION, "config", config=LOCAL).finding == f"{LOCAL} serves it as production, topology staged"
    ab_test = ROOT / "configs/ab_test.yaml"
    assert "serves it as candidate" in check(CANDIDATE, "config", config=ab_test).finding


def test_a_configuration_of_another_bundle_is_a_warning() -> None:
    said = check(CANDIDATE, "config", config=LOCAL)
    assert (said.verdict, said.finding) == (
        Verdict.WARN,
        f"{LOCAL} serves models/production, which is not this bundle",
    )
    assert said.advice.startswith("promote v1.1, or name its folder")


def test_without_a_configuration_what_needs_one_is_not_examined() -> None:
    said = checks(go_through(PRODUCTION))
    for name in ("config", "monitoring", "exposure"):
        assert said[name].finding == "not examined: there is no configuration to look at"
        assert (said[name].verdict, said[name].advice[:13]) == (Verdict.WARN, "give --config")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda d: args(d)["variants"].update(prodaction={}), "args.variants.prodaction: unknown key"),
        (lambda d: args(d).clear(), "args.variants: Field required"),
        (lambda d: d["applications"][0].update(args=[1]), "args: Input should be"),
        (lambda d: d["applications"].clear(), "has 0 applications with import_path deployments.graph:build_app"),
        (lambda d: d["applications"].append(d["applications"][0]), "has 2 applications"),
        (lambda d: d.update(applications="ours"), "has 0 applications"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said_once(
    tmp_path: Path, spoil: Callable[[Document], object], named: str
) -> None:
    said = said_of(spoilt(tmp_path, spoil))
    assert (said["config"].verdict, named in said["config"].finding) == (Verdict.FAIL, True), said["config"]
    for name in ("monitoring", "exposure"):
        assert (said[name].verdict, said[name].finding) == (
            Verdict.WARN,
            "not examined: the configuration cannot be used",
        )


@pytest.mark.parametrize("content", [b"applications: {", b"\xff\xfe\x00", b"- a list", b""])
def test_what_is_no_configuration_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    assert "cannot be read" in check(PRODUCTION, "config", config=path).finding
    path.write_bytes(content)
    assert check(PRODUCTION, "config", config=path).verdict is Verdict.FAIL


# Monitoring.


def test_the_settings_of_the_monitor_are_told(tmp_path: Path) -> None:
    said = check(PRODUCTION, "monitoring", config=spoilt(tmp_path, lambda d: args(d).update(monitor={"window": 7_777})))
    assert (said.verdict, "the latest 7777 answers" in said.finding) == (Verdict.OK, True)


# Security.


def test_every_file_is_named_with_its_format() -> None:
    said = check(PRODUCTION, "formats")
    assert said.verdict is Verdict.OK
    for path in PRODUCTION.iterdir():
        assert f"{path.name} (" in said.finding


@pytest.mark.parametrize(
    ("change", "place", "secret"),
    [
        ({"tracking": {"mlflow_password": "hunter2"}}, "tracking.mlflow_password", "hunter2"),
        ({"api_keys": ["key-of-a-desk"]}, "api_keys[0]", "key-of-a-desk"),
        ({"mlflow": "https://ada:hunter2@mlflow.example/"}, "mlflow", "hunter2"),
        ({"notes": ["-----BEGIN RSA PRIVATE KEY-----"]}, "notes[0]", "RSA"),
    ],
)
def test_a_secret_in_the_bundle_is_found_and_not_repeated(
    bundle: Bundle, tmp_path: Path, change: Document, place: str, secret: str
) -> None:
    said = check(with_metadata(bundle, tmp_path, **change), "secrets")
    assert (said.verdict, said.finding) == (Verdict.FAIL, f"looks like a secret: metadata.json: {place}")
    assert secret not in said.finding + said.advice


def test_a_secret_in_the_configuration_is_found(tmp_path: Path) -> None:
    def write_down(document: Document) -> None:
        document["applications"][0]["runtime_env"] = {"env_vars": {"SIGNALGRAPH_API_KEYS": "key-of-a-desk"}}

    config = spoilt(tmp_path, write_down)
    said = check(PRODUCTION, "secrets", config=config)
    place = "applications[0].runtime_env.env_vars.SIGNALGRAPH_API_KEYS"
    assert (said.verdict, said.finding) == (Verdict.FAIL, f"looks like a secret: {config}: {place}")


def test_what_only_sounds_like_a_secret_is_none(bundle: Bundle, tmp_path: Path) -> None:
    innocent = {"n_tokens": 7, "token": "", "tokenizer": "words", "see": "https://example.org/a@b", "secret": None}
    assert check(with_metadata(bundle, tmp_path, **innocent), "secrets").verdict is Verdict.OK


def test_the_cluster_configuration_asks_for_keys_and_shows_no_secret() -> None:
    said = said_of(ROOT / "configs/cluster.yaml")
    assert (said["exposure"].verdict, said["secrets"].verdict) == (Verdict.OK, Verdict.OK)
    assert "listens on 0.0.0.0, router.auth is api_keys" in said["exposure"].finding


@pytest.mark.parametrize("host", [EVERY_INTERFACE, "trading-box", "10.0.0.7", None])
def test_a_graph_that_anybody_may_ask_must_not_be_deployed(tmp_path: Path, host: str | None) -> None:
    def open_up(document: Document) -> None:
        document["http_options"] = {"host": host} if host else None

    said = check(PRODUCTION, "exposure", config=spoilt(tmp_path, open_up))
    assert said.verdict is Verdict.FAIL
    assert said.finding == f"listens on {host or EVERY_INTERFACE} and router.auth is none: anybody may ask"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_no_key_is_needed_and_the_limits_are_told(tmp_path: Path, host: str) -> None:
    def limit(document: Document) -> None:
        document["http_options"]["host"] = host
        args(document)["router"] = {"max_body_bytes": 2**20, "max_bars": 99, "max_batch_requests": 9}

    said = check(PRODUCTION, "exposure", config=spoilt(tmp_path, limit))
    assert (said.verdict, said.finding) == (
        Verdict.OK,
        f"listens on {host}, router.auth is none; takes at most 1 MiB, 99 bars, 9 requests a call",
    )
