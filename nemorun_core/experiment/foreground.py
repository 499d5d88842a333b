"""An experiment driven on a thread of this process: started, shown, waited for, interrupted."""

from __future__ import annotations

from collections.abc import Callable

from nemorun_core.display.console import Console
from nemorun_core.engine.loop import Engine
from nemorun_core.errors import Defect, NemorunError, UsageError
from nemorun_core.experiment.session import Session
from nemorun_core.model.state import ReasonKind
from nemorun_core.store.lock import Lock, driver_of

__all__ = ["Foreground"]


class Foreground:
    """Drives the experiment of a session.

    Args:
        say: prints a line of ours.
        command: makes the shell line of a command on this experiment.
        tail_logs: show the output of all jobs, not only of those that were added so.
        quiet: print nothing but output.

    Raises:
        UsageError: another process drives it.
    """

    def __init__(
        self,
        session: Session,
        *,
        say: Callable[[str], None],
        command: Callable[[str], str],
        tail_logs: bool,
        quiet: bool,
        take_over: bool,
    ) -> None:
        lock = Lock(session.folder.lock)
        if not lock.acquire(take_over=take_over):
            raise UsageError(
                f"{session.definition.id} is driven by {driver_of(session.folder.lock)}.",
                hint=f"Follow it: {command('status')}; only if that process is lost: resume with take-over.",
            )
        self._session, self._say, self._command = session, say, command
        self._engine = session.engine = Engine(session.definition, session.folder, session.registry, lock)
        jobs = list(self._engine.graph.jobs.values())
        self._console: Console | None = Console(session, jobs, tail_all=tail_logs, quiet=quiet)
        self._engine.tell, self._engine.warn = self._console.tell, self._console.warn
        self._engine.start()
        self._console.start()

    def wait(self) -> None:
        """Wait for the end. An interrupt cancels first what runs on this machine."""
        try:
            self._engine.wait()
        except KeyboardInterrupt:
            self.interrupt()
            raise

    def interrupt(self) -> None:
        """Cancel gracefully what runs on this machine, leave the rest running, and say so. A second interrupt leaves
        at once."""
        try:
            here, elsewhere = self._session.cancel_local(ReasonKind.INTERRUPT)
            goes_on = f"; {elsewhere} go on elsewhere, follow: {self._command('status')}" if elsewhere else ""
            self._say(f"Interrupted: cancelling {here} jobs on this machine{goes_on}. Ctrl-C again to leave at once.")
            if not elsewhere:
                self._engine.wait()
        except KeyboardInterrupt:
            self._engine.kill()
            self._engine.wait(2.0)
            raise
        finally:
            self._engine.leave()
            self._engine.wait(2.0)
            self.close()

    def close(self) -> None:
        """Show what is left to show. May be called again."""
        if self._console is not None:
            self._console.close()
            self._console = None

    def error(self) -> BaseException | None:
        """Return why the driver ended, where that was not the end of all jobs."""
        error = self._engine.error
        if error is None or isinstance(error, NemorunError):
            return error
        name = self._session.definition.id
        defect = Defect(
            f"the driver of {name} broke: {type(error).__name__}: {error}. Jobs that run go on.",
            hint=f"Please report it; then: nemorun experiment resume {name}",
            distribution="nemorun-core",
        )
        defect.__cause__ = error
        return defect
