"""Ray Serve's metrics of event loops have the same labels whatever the loop is of: see `deployments.event_loops`."""

from ray.serve._private.event_loop_monitoring import EventLoopMonitor

import deployments.metrics  # noqa: F401  as every replica does


def test_the_loops_of_a_replica_have_the_labels_of_those_that_know_no_deployment() -> None:
    of_handles = EventLoopMonitor("replica", "router", "an actor")
    of_replica = EventLoopMonitor(
        component="replica", loop_type="main", actor_id="an actor", extra_tags={"deployment": "model"}
    )
    assert of_replica.tags.keys() == of_handles.tags.keys() == {"component", "loop_type", "actor_id"}
