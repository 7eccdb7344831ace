from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from deployments.autoscaling import HEARD_S, ROWS, Backlog, Demand, ScaleByRows


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def context(heard: Mapping[str, float] | None) -> AutoscalingContext:
    """What Ray Serve knows: rows outstanding as each replica heard them."""
    metrics = None if heard is None else {ROWS: dict(heard)}
    return cast(AutoscalingContext, SimpleNamespace(aggregated_metrics=metrics))


def replicas(rows_per_replica: float, *heard: float) -> int:
    return ScaleByRows(rows_per_replica)(context({str(i): rows for i, rows in enumerate(heard)}))[0]


def test_backlogs_of_all_routers_add_up_and_the_latest_of_each_counts() -> None:
    demand = Demand(Clock())
    for router, rows in (("a", 10), ("b", 5), ("a", 7)):
        demand.hear(Backlog(router, rows))
    assert demand.stats() == {ROWS: 12}


def test_a_router_that_is_not_heard_any_more_has_nothing_to_do() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.hear(Backlog("a", 10))
    clock.now = HEARD_S / 2
    demand.hear(Backlog("b", 5))
    clock.now = HEARD_S
    assert demand.rows == 15
    clock.now = HEARD_S * 1.25
    assert demand.rows == 5
    clock.now = HEARD_S * 2
    assert demand.rows == 0


@pytest.mark.parametrize(("rows", "expected"), [(0, 1), (1, 1), (64, 1), (65, 2), (128, 2), (129, 3), (640, 10)])
def test_there_is_a_replica_for_so_many_rows(rows: float, expected: int) -> None:
    assert replicas(64, rows) == expected


def test_what_two_replicas_heard_is_not_added_up() -> None:
    assert replicas(64, 128, 100, 0) == 2


@pytest.mark.parametrize("heard", [None, {}])
def test_when_nothing_was_heard_one_is_enough(heard: Any) -> None:
    assert ScaleByRows(64)(context(heard))[0] == 1


def test_stages_that_scale_on_the_same_rows_keep_their_ratio() -> None:
    for rows in (256, 512, 2560):
        assert replicas(64, rows) == 4 * replicas(256, rows)


def test_a_senseless_target_is_refused() -> None:
    with pytest.raises(ValueError, match="rows_per_replica is 0; it must be greater than 0"):
        ScaleByRows(0)


def test_ray_serve_takes_it_as_a_policy_to_its_controller() -> None:
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function="deployments.autoscaling:ScaleByRows", policy_kwargs={"rows_per_replica": 64}
    )
    policy.serialize_policy()
    make = policy.get_policy()
    assert make(**policy.policy_kwargs)(context({"a": 100.0})) == (2, {})
