"""Keeps with each experiment which commit it was launched from, and what differed from it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nemorun_core import UsageError, hookimpl
from nemorun_git.repository import Repository

__all__ = ["nemorun_provenance", "without_credentials"]

_LONGEST_DIFF = 256 * 1024


@hookimpl
def nemorun_provenance(experiment: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return commit, branch, remote (without credentials), diff and untracked files of the launcher's repository."""
    try:
        repository = Repository.around(experiment["cwd"])
    except UsageError:  # no repository, or no git
        return None
    commit = repository.commit("HEAD")
    diff = repository.diff() if commit else ""
    facts = {
        "commit": commit or "",
        "branch": repository.branch(),
        "remote": without_credentials(repository.remote()),
        "diff": diff if len(diff) <= _LONGEST_DIFF else f"{diff[:_LONGEST_DIFF]}\n[{len(diff)} characters, cut]",
        "untracked": "\n".join(repository.status().untracked),
    }
    return {name: value for name, value in facts.items() if value}


def without_credentials(address: str) -> str:
    """Return an address without user and password: `ssh://git@host/x` becomes `ssh://host/x`."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/@]*@", r"\1", address)
