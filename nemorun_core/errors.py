"""The errors that a caller can act on, one class for each thing that can be done about them.

Every message says what was expected, what was found and where; `hint` is the one next step. Neither holds a secret.
"""

from __future__ import annotations

__all__ = [
    "Defect",
    "ExperimentFailed",
    "NemorunError",
    "StoreError",
    "TransientError",
    "UsageError",
]


class NemorunError(Exception):
    """Base of all errors that nemorun raises on purpose.

    Args:
        message: what was expected, what was found and where. One sentence or more, no newline at the end.
        hint: the next step, in the imperative. Shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    @property
    def line(self) -> str:
        """Message and hint in one line, as they stand in a reason."""
        return str(self).strip().replace("\n ", "")


class UsageError(NemorunError):
    """The input cannot be honoured; nothing was created. Change the input."""


class TransientError(NemorunError):
    """A scheduler did not answer, or may have acted without answering. Try again, or look first.

    Args:
        nothing_done: it surely did not act, so that there is nothing to look for.
    """

    def __init__(self, message: str, *, hint: str = "", nothing_done: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.nothing_done = nothing_done


class StoreError(NemorunError):
    """The experiment's folder cannot be read or written: disk, permissions, lock, a corrupt or newer record."""


class Defect(NemorunError):
    """Something of ours or of a plugin's is broken. `distribution` says whose it is, `name version`, where known."""

    def __init__(self, message: str, *, hint: str = "", distribution: str = "") -> None:
        super().__init__(message, hint=hint)
        self.distribution = distribution


class ExperimentFailed(NemorunError):
    """At least one job of the experiment did not succeed.

    Attributes:
        experiment_id: the id of the experiment.
        failures: job id to reason, in the order of `add`, for each job that ended in another state than SUCCEEDED.
    """

    def __init__(self, message: str, *, experiment_id: str, failures: dict[str, str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.experiment_id = experiment_id
        self.failures = failures
