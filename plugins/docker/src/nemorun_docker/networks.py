"""The network of a group: found by its label, used by its id."""

from __future__ import annotations

from nemorun_core import Key, TransientError
from nemorun_docker.body import KEY, network_body
from nemorun_docker.client import Engine

__all__ = ["find_networks", "make_network", "remove_network"]


def find_networks(engine: Engine, key: Key) -> list[str]:
    """Return the ids of a group's networks, in an order that all drivers agree on. Raises TransientError."""
    answer = engine.request("GET", "/networks", filters={"label": [f"{KEY}={key}"]})
    if answer.is_refusal:
        raise TransientError(f"the Docker engine does not list its networks: {answer.message}")
    return sorted(entry["Id"] for entry in answer.value if entry["Labels"].get(KEY) == str(key))


def make_network(engine: Engine, key: Key) -> tuple[str, str]:
    """Return the id of a group's network, made if it is not there, or "" and why the engine refused it.

    Raises:
        TransientError: the engine did not answer.
    """
    if found := find_networks(engine, key):
        return found[0], ""
    answer = engine.request("POST", "/networks/create", network_body(key))
    if answer.is_refusal and answer.status != 409:
        return "", answer.message
    found = find_networks(engine, key)
    return (found[0], "") if found else ("", f"it has a network {key.slug()} that is not ours")


def remove_network(engine: Engine, key: Key) -> None:
    """Remove a group's network, once nothing of it runs; fine where there is none. Raises TransientError."""
    for network in find_networks(engine, key):
        engine.request("DELETE", f"/networks/{network}")
