"""What `signalgraph up` reads out of a configuration before it starts it."""

from typing import Any

import pytest

from deployments.launch import GRAPH, prefix_of

MODEL = {"import_path": "deployments.graph:build_model", "route_prefix": None}


@pytest.mark.parametrize(
    ("graphs", "prefix"),
    [
        ([{}], ""),
        ([{"route_prefix": "/"}], ""),
        ([{"route_prefix": "/desk-a"}], "/desk-a"),
        ([{"route_prefix": "/desk-a/"}, {"route_prefix": "/desk-b"}], "/desk-a"),
        ([{"route_prefix": None}], ""),
        ([], ""),
    ],
)
def test_the_path_that_a_graph_answers_below_is_that_of_the_first(graphs: list[dict[str, Any]], prefix: str) -> None:
    assert prefix_of({"applications": [MODEL, *({"import_path": GRAPH, **graph} for graph in graphs)]}) == prefix
