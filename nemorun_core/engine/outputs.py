"""Outputs: the files that a job's executor declares, brought from where each member ran."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence

from nemorun_core.contracts.backend import Submission
from nemorun_core.errors import TransientError
from nemorun_core.store.files import guarded, make_folder

__all__ = ["bring"]


def bring(submission: Submission, member: int, to: str) -> list[str]:
    """Copy the declared outputs of one member below the folder `to`, and return their names, sorted.

    Files keep their places relative to where the member ran; what was there before under the same name is replaced.

    Raises:
        TransientError: the scheduler did not answer, or does not know the job any more.
        StoreError: the disk refused.
    """
    executor = submission.executors[member]
    if executor.capabilities().shares_files:
        return _copy(submission.members[member].cwd, executor.outputs, to)
    before = _files_below(to)
    with executor.backend() as backend:
        handle = backend.find([submission]).get(submission.key)
        if handle is None:
            raise TransientError(
                f"the scheduler of job {submission.key.job!r} does not know it any more: its outputs cannot be brought."
            )
        make_folder(to)
        backend.fetch(handle, member, executor.outputs, to)
    after = _files_below(to)
    return sorted(name for name in after if after[name] != before.get(name))


def _copy(root: str, patterns: Sequence[str], to: str) -> list[str]:
    names: set[str] = set()
    for pattern in patterns:
        for match in glob.iglob(pattern, root_dir=root, recursive=True):
            path = os.path.join(root, match)
            below = _files_below(path) if os.path.isdir(path) else {}
            names.update(os.path.normpath(os.path.join(match, name)) for name in below)
            if os.path.isfile(path):
                names.add(os.path.normpath(match))
    for name in sorted(names):
        target = os.path.join(to, name)
        make_folder(os.path.dirname(target))
        with guarded("write", target):
            shutil.copy2(os.path.join(root, name), f"{target}.{os.getpid()}.tmp")
            os.replace(f"{target}.{os.getpid()}.tmp", target)
    return sorted(names)


def _files_below(folder: str) -> dict[str, tuple[int, int]]:
    """Return the files below a folder, by their relative names, with what changes when they are written."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                facts = os.stat(path)
                found[os.path.relpath(path, folder)] = (facts.st_mtime_ns, facts.st_ino)
    return found
