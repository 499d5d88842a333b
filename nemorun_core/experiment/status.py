"""What `status` returns and prints, made of rows."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nemorun_core.engine.summary import MemberRow, Row
from nemorun_core.model.garbage import uncollected
from nemorun_core.store.layout import Folder

__all__ = ["JobStatus", "status_of", "status_text"]

JobStatus = dict[str, object]


def status_of(folder: Folder, rows: Sequence[Row]) -> dict[str, JobStatus]:
    """Return, for each job in the order of `add`, its status as plain values: strings, numbers, lists and None."""
    with uncollected():
        return {row.id: _job(folder, row) for row in rows}


def status_text(experiment_id: str, status: dict[str, JobStatus]) -> str:
    """Return the status as the guide shows it, with the reason where there is one."""
    lines = [f"Experiment Status for {experiment_id}"]
    for number, (name, job) in enumerate(status.items()):
        lines += ["", f"Task {number}: {name}", f"- Status: {job['state']}"]
        if job["reason"]:
            lines.append(f"- Reason: {job['reason']}")
        lines += [
            f"- Executor: {job['executor']}",
            f"- Job id: {job['handle'] or '-'}",
            f"- Local Directory: {job['local_dir']}",
        ]
    return "\n".join(lines)


def _job(folder: Folder, row: Row) -> JobStatus:
    place = os.path.join(folder.path, row.folder)
    members = [_member(row, member, place) for member in row.members or [row.whole]]
    return {**_member(row, row.whole, place), "members": members}


def _member(row: Row, member: MemberRow, place: str) -> JobStatus:
    return {
        "state": member.state,
        "reason": member.reason,
        "exit_code": member.exit_code,
        "executor": member.executor,
        "handle": row.handle,
        "local_dir": place,
        "attempt": row.attempt,
        "started": member.started,
        "ended": member.ended,
    }
