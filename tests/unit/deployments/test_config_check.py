"""Everything that can be known to be wrong with a configuration is said before anything starts."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import config_check
from deployments.keys import API_KEYS

pytestmark = pytest.mark.usefixtures("in_the_clone")

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
Document = dict[str, Any]


@pytest.fixture
def ab_test() -> Document:
    (path,) = (path for path in CONFIGS if path.name == "ab_test.yaml")
    document: Document = copy.deepcopy(yaml.safe_load(path.read_text()))
    return document


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_shipped_configurations_have_no_fault(path: Path) -> None:
    assert config_check.faults_of_file(path) == []


def signals(document: Document) -> Document:
    application: Document = document["applications"][0]
    return application


def misspell_share(document: Document) -> None:
    assignment = signals(document)["args"]["router"]["assignment"]
    assignment["candidate_shar"] = assignment.pop("candidate_share")


def misspell_replicas(document: Document) -> None:
    signals(document)["deployments"][0]["num_replica"] = 2


def open_to_the_world(document: Document) -> None:
    document["http_options"]["host"] = "0.0.0.0"  # noqa: S104  what must be refused


def forget_the_candidate(document: Document) -> None:
    document["applications"].pop()


def give_the_candidate_another_bundle(document: Document) -> None:
    document["applications"][2]["args"]["bundle"] = "models/v1.0"


def rename_the_model_application(document: Document) -> None:
    document["applications"][1]["name"] = "production-model"


def swap_the_variants(document: Document) -> None:
    document["applications"][1]["args"]["variant"] = "candidate"


def misspell_the_builder(document: Document) -> None:
    signals(document)["import_path"] = "deployments.graph:bild_app"


def misspell_a_stage(document: Document) -> None:
    document["applications"][1]["deployments"][0]["name"] = "modell"


def leave_the_host_to_serve(document: Document) -> None:
    del document["http_options"]["host"]


def name_a_host(document: Document) -> None:
    document["http_options"]["host"] = "trading-box"


def name_a_bundle_that_is_not_there(document: Document) -> None:
    signals(document)["args"]["variants"]["candidate"]["bundle"] = "models/v9.9"


def queue_less_than_a_batch_call(document: Document) -> None:
    signals(document)["args"]["variants"]["candidate"]["max_queued_rows"] = 512


def configure_a_model_that_is_elsewhere(document: Document) -> None:
    signals(document)["args"]["model"] = {"threads": 2}


def serve_in_a_runtime_without_file(document: Document) -> None:
    document["applications"][1]["args"]["model"] = {"runtime": "torchscript"}


def serve_in_a_precision_without_gate(document: Document) -> None:
    document["applications"][2]["args"]["model"] = {"runtime": "torch", "precision": "bf16"}


def make_an_application_a_text(document: Document) -> None:
    document["applications"][0] = "signals"


def make_options_a_list(document: Document) -> None:
    document["http_options"] = [1]


def share_above_one(document: Document) -> None:
    signals(document)["args"]["router"]["assignment"]["candidate_share"] = 1.2


def use_a_candidate_that_is_not_there(document: Document) -> None:
    del signals(document)["args"]["variants"]["candidate"]


def keep_releases_in_memory(document: Document) -> None:
    signals(document)["args"]["journal"] = {"url": "sqlite://"}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (keep_releases_in_memory, "journal.url: a database in memory is gone with its process"),
        (misspell_share, "applications[0].args.router.assignment.candidate_shar: unknown key"),
        (misspell_replicas, "applications[0].deployments[0].num_replica: unknown; did you mean num_replicas?"),
        (open_to_the_world, "router.auth is none: anybody may ask"),
        (forget_the_candidate, "variants.candidate: no application builds its model"),
        (give_the_candidate_another_bundle, "variants.candidate.bundle is models/v1.1"),
        (rename_the_model_application, "it needs one named model-production"),
        (swap_the_variants, "args.variant production"),
        (misspell_the_builder, "applications[0].import_path: deployments.graph:bild_app is none of"),
        (misspell_a_stage, "applications[1].deployments[0].name: modell is none of model"),
        (leave_the_host_to_serve, "http_options.host is 0.0.0.0 and router.auth is none"),
        (name_a_host, "http_options.host is trading-box and router.auth is none"),
        (name_a_bundle_that_is_not_there, "variants.candidate.bundle: no bundle at"),
        (queue_less_than_a_batch_call, "max_queued_rows is 512, less than the 1000"),
        (configure_a_model_that_is_elsewhere, "model is for the fused topology"),
        (serve_in_a_runtime_without_file, "model-production.args.model: v1.0 has no model.ts"),
        (serve_in_a_precision_without_gate, "model-candidate.args.model: nothing shows that v1.1 decides alike"),
        (make_an_application_a_text, "applications[0]"),
        (make_options_a_list, "http_options"),
        (share_above_one, "applications[0].args.router.assignment.candidate_share"),
        (use_a_candidate_that_is_not_there, "variants.candidate is not set"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_named(ab_test: Document, spoil: Callable[[Document], None], named: str) -> None:
    spoil(ab_test)
    faults = config_check.faults(ab_test)
    assert any(named in fault for fault in faults), faults


@pytest.mark.parametrize("where", ["nowhere", "environment", "runtime_env"])
def test_what_starts_needs_its_keys_there_and_then(ab_test: Document, where: str) -> None:
    signals(ab_test)["args"]["router"]["auth"] = "api_keys"
    keys = {API_KEYS: "key-of-a-desk"}
    if where == "runtime_env":
        signals(ab_test)["runtime_env"] = {"env_vars": keys}
    faults = config_check.faults(ab_test, keys if where == "environment" else {})
    assert [API_KEYS in fault for fault in faults] == ([True] if where == "nowhere" else [])
    assert config_check.faults(ab_test) == []


@pytest.mark.parametrize("given", [{API_KEYS: 12345}, ["a list"], "text"])
def test_variables_that_are_no_texts_are_a_fault_and_no_traceback(ab_test: Document, given: object) -> None:
    signals(ab_test)["runtime_env"] = {"env_vars": given}
    (fault,) = config_check.faults(ab_test, {})
    assert "runtime_env.env_vars" in fault


def test_no_variables_are_no_fault(ab_test: Document) -> None:
    signals(ab_test)["runtime_env"] = {"env_vars": None}
    assert config_check.faults(ab_test, {}) == []


def test_what_is_no_serve_config_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert "cannot be read" in config_check.faults_of_file(path)[0]
    path.write_text("- a list")
    assert config_check.faults_of_file(path) == ["it is not a Serve config: it has no `applications`"]
    path.write_text("applications: {")
    assert "cannot be read" in config_check.faults_of_file(path)[0]


def test_run_as_a_module_it_prints_the_faults_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("applications: []\nhttp_option: {port: 1}\n")
    assert config_check.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}: http_option: unknown; did you mean http_options?\n"
    assert config_check.main([str(CONFIGS[0])]) == 0
