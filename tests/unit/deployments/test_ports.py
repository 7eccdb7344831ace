import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from deployments import ports


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback that this very process listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_the_holder_of_a_port_is_named_by_pid(taken: int) -> None:
    found = ports.holder(taken)
    assert found is not None
    assert found.pid == os.getpid()
    assert str(found).startswith(f"pid {os.getpid()} (")


def test_a_port_that_nobody_listens_on_has_no_holder(taken: int) -> None:
    assert not ports.is_free(taken)
    assert ports.holder(1) is None


def test_a_holder_that_we_may_not_see_is_said_to_be_another_users() -> None:
    assert "another user" in str(ports.Holder())


def test_a_slot_with_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port not in {8404, 9102})
    assert ports.choose(8000).slot == 2
    assert ports.choose(8000, taken=[2]).slot == 3
    assert ports.choose(8406).slot == 3
