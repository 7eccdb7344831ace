from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from serve_app.config import AppConfig, AssignmentConfig, Auth, ModelAppConfig, Section, Topology, parse_section
from serve_app.errors import ConfigError
from serve_app.types import VariantName
from tests.factories import ROOT

LEAST: dict[str, Any] = {"variants": {"production": {"bundle": "models/v1.0"}}}
CANDIDATE: dict[str, Any] = {"variants": {**LEAST["variants"], "candidate": {"bundle": "models/v1.1"}}}


def parse(document: dict[str, Any]) -> AppConfig:
    return parse_section(AppConfig, document, "args")


def test_the_least_configuration_has_the_documented_defaults() -> None:
    config = parse(LEAST)
    assert config.topology is Topology.STAGED
    assert config.router.auth is Auth.NONE
    assert config.router.assignment.candidate_share == 0
    assert config.router.batching.max_batch_size == 64
    assert config.router.batching.max_in_flight == 1
    assert config.variants.production.deadline_ms == 2000
    assert config.variants.configured() == {VariantName.PRODUCTION: config.variants.production}


def test_configured_variants_come_with_production_first() -> None:
    assert list(parse(CANDIDATE).variants.configured()) == [VariantName.PRODUCTION, VariantName.CANDIDATE]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({**LEAST, "toplogy": "fused"}, "args.toplogy: unknown key"),
        ({**LEAST, "router": {"batching": {"max_batchsize": 3}}}, "args.router.batching.max_batchsize: unknown key"),
        ({**LEAST, "monitor": {"window": 0}}, "args.monitor.window: Input should be greater than 0"),
        ({**LEAST, "router": {"assignment": {"candidate_share": 1.1}}}, "args.router.assignment.candidate_share"),
        ({**LEAST, "router": {"assignment": {"pins": {"IBM": "shadow"}}}}, "args.router.assignment.pins.IBM"),
        ({**LEAST, "router": {"auth": "basic"}}, "args.router.auth"),
        ({**LEAST, "topology": "chain"}, "args.topology"),
        ({**LEAST, "topology": "fused", "model": {"threads": 0}}, "args.model.threads"),
        ({"variants": {}}, "args.variants.production: Field required"),
        ({"variants": {"production": {"bundle": "x", "deadline_ms": 0}}}, "args.variants.production.deadline_ms"),
        ({"variants": {"production": {"bundle": "x"}, "shadow": {"bundle": "y"}}}, "args.variants.shadow: unknown key"),
        ({}, "args.variants: Field required"),
    ],
)
def test_a_wrong_key_is_named_with_its_whole_path(document: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(document)
    assert key in str(refusal.value)


def test_all_wrong_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"args\.one: .*; args\.two: "):
        parse({**LEAST, "one": 1, "two": 2})


@pytest.mark.parametrize(
    "assignment", [{"candidate_share": 0.001}, {"pins": {"IBM": "candidate"}}, {"candidate_share": 1, "pins": {}}]
)
def test_a_candidate_that_is_used_must_be_there(assignment: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sends symbols to the candidate, but variants\.candidate is not set"):
        parse({**LEAST, "router": {"assignment": assignment}})
    assert parse({**CANDIDATE, "router": {"assignment": assignment}}).variants.candidate is not None


@pytest.mark.parametrize(
    ("assignment", "asked"),
    [
        ({}, {"production"}),
        ({"candidate_share": 0.001}, {"production", "candidate"}),
        ({"pins": {"IBM": "candidate"}}, {"production", "candidate"}),
        ({"candidate_share": 1}, {"candidate"}),
        ({"candidate_share": 1, "pins": {"IBM": "production"}}, {"production", "candidate"}),
    ],
)
def test_who_answers_any_symbol(assignment: dict[str, Any], asked: set[str]) -> None:
    assert AssignmentConfig.model_validate(assignment).asked == asked


@pytest.mark.parametrize("assignment", [{}, {"candidate_share": 0}, {"pins": {"IBM": "production"}}])
def test_a_candidate_that_is_not_used_need_not_be_there(assignment: dict[str, Any]) -> None:
    assert parse({**LEAST, "router": {"assignment": assignment}}).variants.candidate is None


def test_settings_do_not_change() -> None:
    config = parse(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.topology = Topology.FUSED
    with pytest.raises(ValidationError, match="frozen"):
        config.router.batching.max_batch_size = 1


def test_settings_survive_the_way_through_yaml() -> None:
    config = parse({**CANDIDATE, "router": {"assignment": {"candidate_share": 0.3, "pins": {"IBM": "candidate"}}}})
    written = config.model_dump(mode="json", exclude_unset=True)
    assert parse(yaml.safe_load(yaml.safe_dump(written))) == config


@pytest.mark.parametrize("variant", ["production", "candidate"])
@pytest.mark.parametrize(("queued", "fits"), [(49, False), (50, True), (51, True)])
def test_a_queue_takes_at_least_one_whole_batch_call(variant: str, queued: int, fits: bool) -> None:
    variants = {name: dict(config) for name, config in CANDIDATE["variants"].items()}
    variants[variant]["max_queued_rows"] = queued
    document = {"variants": variants, "router": {"max_batch_requests": 50}}
    if fits:
        assert parse(document).router.max_batch_requests == 50
        return
    with pytest.raises(ConfigError, match=rf"variants\.{variant}\.max_queued_rows is 49, less than the 50"):
        parse(document)


@pytest.mark.parametrize("topology", ["staged", "model_remote"])
def test_settings_of_a_model_that_runs_elsewhere_are_refused(topology: str) -> None:
    with pytest.raises(ConfigError, match="model is for the fused topology"):
        parse({**LEAST, "topology": topology, "model": {"threads": 2}})
    assert parse({**LEAST, "topology": "fused", "model": {"threads": 2}}).model.threads == 2


def applications() -> Iterator[Any]:
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        for application in yaml.safe_load(path.read_text())["applications"]:
            yield pytest.param(application, id=f"{path.stem}/{application['name']}")


@pytest.mark.parametrize("application", list(applications()))
def test_the_arguments_of_every_shipped_application_are_valid(application: dict[str, Any]) -> None:
    sections: dict[str, type[Section]] = {
        "deployments.graph:build_app": AppConfig,
        "deployments.graph:build_model": ModelAppConfig,
    }
    parse_section(sections[application["import_path"]], application["args"], application["name"])


def test_the_configuration_for_a_cluster_needs_keys() -> None:
    (signals, *_) = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())["applications"]
    assert parse(signals["args"]).router.auth is Auth.API_KEYS
