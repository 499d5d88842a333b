"""What a backend can do, as its executor declares it."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["Capabilities"]


@attrs.frozen(kw_only=True)
class Capabilities:
    """What an executor's backend can honour. What is missing is refused before anything is created (E16).

    Attributes:
        runs_on_this_machine: jobs end with this machine, and are cancelled when the foreground is interrupted.
        shares_files: jobs see this machine's file system under the same paths; logs and records appear in the job's
            folder by themselves, and the engine does not fetch them.
        own_image: jobs run in an image of their own: this machine's Python and its packages are not there.
        group: how members of a group are placed; None: groups are refused. "atomic": all or none. "together": created
            at once, all withdrawn and retried where not all run in `placement_timeout_seconds`.
        wait: `Backend.wait` ends early when something changed, so that no poll interval is needed.
        timeout: `timeout_seconds` is honoured.
        separate_stderr: standard error can have a stream of its own.
        native_edges: edges can be handed to the scheduler: `Submission.after`. What can never run leaves its queue.
        fetch: `Backend.fetch` brings outputs.
        release: a job leaves something on the scheduler until `Backend.release`: a new driver releases again what the
            one before may not have.
        signals: names, without SIG, that `Backend.signal` can send.
        largest_batch: most jobs in one `submit`; None: as the engine likes, which is some dozens. More are good where
            one call takes them all, and one that is long keeps whoever cancels or takes over waiting.
        poll_interval_seconds: time between polls where `wait` is missing.
    """

    runs_on_this_machine: bool = False
    shares_files: bool = False
    own_image: bool = False
    group: Literal["atomic", "together"] | None = None
    wait: bool = False
    timeout: bool = False
    separate_stderr: bool = False
    native_edges: bool = False
    fetch: bool = False
    release: bool = False
    signals: frozenset[str] = frozenset()
    largest_batch: int | None = None
    poll_interval_seconds: float = 5.0

    @property
    def shares_python(self) -> bool:
        """Whether this machine's interpreter, and what it imports from, are there under the same paths."""
        return self.shares_files and not self.own_image
