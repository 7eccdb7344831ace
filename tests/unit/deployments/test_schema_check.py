import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray's own, at import
    from deployments import schema_check


def document(**deployment: object) -> dict[str, object]:
    application = {"name": "signals", "import_path": "a:b", "deployments": [{"name": "Router", **deployment}]}
    return {"applications": [application]}


def test_a_sound_document_has_no_faults() -> None:
    sound = document(
        max_ongoing_requests=8,
        num_replicas="auto",
        ray_actor_options={"num_cpus": 0.5, "num_gpus": 0},
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2},
        backpressure_config={"status_code": 503, "retry_after_s": 1},
    )
    sound |= {"proxy_location": "EveryNode", "http_options": {"host": "127.0.0.1", "port": 8000}}
    assert schema_check.faults(sound) == []


def test_a_near_miss_is_named_by_its_path_with_the_intended_key() -> None:
    assert schema_check.unknown_keys(document(max_ongoing_request=8)) == [
        "applications[0].deployments[0].max_ongoing_request: unknown; did you mean max_ongoing_requests?"
    ]


@pytest.mark.parametrize(
    ("section", "key", "intended"),
    [
        ("ray_actor_options", "num_gpu", "num_gpus"),
        ("autoscaling_config", "min_replica", "min_replicas"),
        ("backpressure_config", "status", "status_code"),
        ("logging_config", "loglevel", "log_level"),
        ("request_router_config", "initial_backoff", "initial_backoff_s"),
    ],
)
def test_every_section_of_a_deployment_is_checked(section: str, key: str, intended: str) -> None:
    (fault,) = schema_check.unknown_keys(document(**{section: {key: 1}}))
    assert fault == f"applications[0].deployments[0].{section}.{key}: unknown; did you mean {intended}?"


@pytest.mark.parametrize("section", ["http_options", "grpc_options", "logging_config"])
def test_every_section_of_the_whole_graph_is_checked(section: str) -> None:
    (fault,) = schema_check.unknown_keys({**document(), section: {"zzz": 1}})
    assert fault.startswith(f"{section}.zzz: unknown; known are ")


def test_free_form_sections_are_not_looked_into() -> None:
    free = document(user_config={"split": 0.1}, ray_actor_options={"runtime_env": {"env_vars": {"A": "1"}}})
    free["applications"][0] |= {"args": {"production": "v1.0"}, "runtime_env": {"zzz": 1}}  # type: ignore[index]
    assert schema_check.unknown_keys(free) == []


def test_values_that_serve_refuses_are_named_too() -> None:
    faults = schema_check.faults(document(max_ongoing_requests="many"))
    assert [fault.split(":")[0] for fault in faults] == ["applications[0].deployments[0].max_ongoing_requests"]
