"""The service that jax.distributed starts is private to JAX; it must be what we take it for."""

import importlib
import re

import pytest

from ove import distributed as processes

ADVICE = "has changed with this version of JAX: adapt ove/distributed.py (`service`, `Processes`), then these names"


def test_the_service_is_where_it_is_looked_for() -> None:
    distributed = importlib.import_module("jax._src.distributed")
    assert "client" in vars(type(distributed.global_state)), "jax._src.distributed.global_state.client " + ADVICE
    assert processes.service() is None


@pytest.mark.parametrize(
    ("method", "parameters", "result"),
    [
        ("key_value_set", ["key: str", "value: str"], "None"),
        ("wait_at_barrier", ["barrier_id: str", "timeout_in_ms: int"], "None"),
        ("key_value_dir_get", ["key: str"], "list[tuple[str, str]]"),
        ("key_value_delete", ["key: str"], "None"),
    ],
)
def test_the_service_is_called_as_it_is_defined(method: str, parameters: list[str], result: str) -> None:
    client = importlib.import_module("jaxlib._jax").DistributedRuntimeClient
    # It is compiled: its signatures stand in the first line of what it says of itself.
    signature = (getattr(client, method, None).__doc__ or "").partition("\n")[0]
    found = re.fullmatch(r"\w+\(self, (.*)\) -> (.*)", signature)
    advice = f"DistributedRuntimeClient.{method} ({signature}) {ADVICE}"
    assert found and found[2] == result, advice
    given = found[1].split(", ")
    assert given[: len(parameters)] == parameters, advice
    assert all(" = " in other for other in given[len(parameters) :]), advice
