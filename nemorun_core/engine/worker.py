"""One backend and the thread that alone calls it: takes commands, submits, polls, and reports events."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from nemorun_core.contracts.backend import After, Backend, Submission
from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.observation import UNKNOWN, Accepted, Answer, Deferred, Handle, Observation, Rejected
from nemorun_core.engine.backing_off import FIRST_SECONDS, BackOff
from nemorun_core.engine.collecting import Collector
from nemorun_core.engine.events import Delayed, Event, Lost, Observed, Refused, Released, Submitted, Warned, Withdrawn
from nemorun_core.engine.offers import Offers
from nemorun_core.engine.releasing import Attempt, Leftovers
from nemorun_core.engine.watched import Watched
from nemorun_core.errors import NemorunError, TransientError, UsageError
from nemorun_core.model.key import Key
from nemorun_core.model.state import Reason, ReasonKind
from nemorun_core.store.lock import Overtaken

__all__ = ["Worker"]

_CHUNK = 64
_LONGEST_WAIT = 60.0
_TELL_SECONDS = 0.05
_LAST_TRIES = 3
_TELLING_FAILURES = 2


class Worker(threading.Thread):
    """Drives one backend until it is told to stop. The other threads only leave commands here.

    Args:
        executor: any executor of the connection; opens the backend.
        build: makes the submission of an attempt; raises UsageError.
        report: takes events, in order; called on this thread.
        check: raises where this process may not submit any more; called before each submission.
        edges: what a scheduler has to keep of a job's edges; None where it is not to be submitted now.
        submits: False to adopt, poll and cancel only.
    """

    def __init__(
        self,
        executor: Executor,
        build: Callable[[str, int], Submission],
        report: Callable[[Sequence[Event]], None],
        check: Callable[[], None],
        edges: Callable[[str], tuple[After, ...] | None],
        *,
        submits: bool = True,
    ) -> None:
        super().__init__(name=f"nemorun {type(executor).__name__}", daemon=True)
        self._executor = executor
        self._able = executor.capabilities()
        # An ended attempt whose log is not here yet must not be forgotten either.
        self._remaining = self._able.release or not self._able.shares_files
        self._logs = Collector()
        self._build = build
        self._report = report
        self._check = check
        self._offers = Offers(build, edges)
        self._submits = submits
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._backend: Backend | None = None
        self._stopping = False
        self._commands: deque[tuple[str, object]] = deque()
        # Attempts that may be there; handles to poll and cancel; ended attempts to release, of this connection and of
        # drivers before.
        self._doubts: dict[Attempt, Handle | None] = {}
        self._watched: dict[Handle, Watched] = {}
        self._cancels: dict[Handle, bool] = {}
        self._leftovers = Leftovers()
        self._answers: list[Event] = []
        self._told_at = 0.0
        self._changed: set[Handle] = set()
        self._held_back = False
        self._silence, self._limit = BackOff(), BackOff()
        self._adopted = False
        self.settled = threading.Event()
        self._unknown: set[Handle] = set()
        self._withdrawn: set[Attempt] = set()

    # Commands, from any thread.

    def submit(self, attempts: Iterable[Attempt]) -> None:
        """Submit attempts whose intent is durable."""
        self._command("submit", list(attempts))

    def adopt(self, attempts: Iterable[tuple[Attempt, Handle | None]]) -> None:
        """Look for attempts that may be there; what is not is submitted, or given back where this one only settles."""
        self._command("adopt", list(attempts))

    def cancel(self, handles: Iterable[Handle]) -> None:
        """Cancel attempts."""
        self._command("cancel", list(handles))

    def kill(self) -> None:
        """End all that is being cancelled at once, without grace."""
        self._command("kill", None)

    def withdraw(self, attempts: Iterable[Attempt]) -> None:
        """Give back attempts that are not taken yet; each is answered by `Withdrawn` or by `Submitted`."""
        self._command("withdraw", set(attempts))

    def release(self, attempts: Iterable[tuple[Attempt, Handle]]) -> None:
        """Forget finished attempts, here and on the scheduler."""
        self._command("release", list(attempts))

    def clear(self, attempts: Iterable[tuple[Attempt, Handle]]) -> None:
        """Release attempts that ended under a driver before, which may have done it."""
        self._command("clear", list(attempts))

    def stop(self) -> None:
        """End the thread after the call it is in, and close the backend."""
        self._command("stop", None)

    def _command(self, name: str, argument: object) -> None:
        self._commands.append((name, argument))
        self._woken.set()
        with self._lock:
            if self._backend is not None:
                self._backend.wake()

    # The thread.

    def run(self) -> None:
        try:
            backend = self._executor.backend()
        except Exception as error:
            self._give_up(error)
            return
        with backend:
            with self._lock:
                self._backend = backend
            while not self._stopping:
                self._turn(backend)
            self._release(backend)
            with self._lock:
                self._backend = None

    def _give_up(self, error: Exception) -> None:
        """Refuse everything: the backend cannot even be opened."""
        reason = Reason(ReasonKind.REJECTED, _words(error))
        while not self._stopping:
            self._woken.wait()
            self._woken.clear()
            self._take()
            attempts = [*self._offers.attempts(), *self._doubted()]
            self._offers.take_back(attempts)
            self._doubts.clear()
            self._report([Refused(job, attempt, reason) for job, attempt in attempts])

    def _turn(self, backend: Backend) -> None:
        self._woken.clear()
        self._take()
        if self._stopping:
            return
        try:
            if not self._silence.left(time.monotonic()):
                self._serve(backend)
                self._silence.succeed()
                self._settle()
            if not self._commands and not self._can_offer():
                self._rest(backend)
        except TransientError as error:
            self._back_off()
            if self._silence.failures == _TELLING_FAILURES:
                self._tell_of_silence(error)
            self._settle()
        except Overtaken:  # what is left is the other driver's to do
            self._cancels.clear()
            self._leftovers.forget()
            self._stopping = True
        except Exception as error:  # whatever a plugin raises is the plugin's
            self._report([Warned(f"{type(self._executor).__name__}: {_words(error)}")])
            self._back_off()
            self._settle()

    def _can_offer(self) -> bool:
        waiting = bool(self._offers) and self._submits and not self._held_back
        return waiting and not self._silence.left(time.monotonic())

    def _settle(self) -> None:
        """Note that the backend was asked about everything once, or that it could not be."""
        if self._adopted and not self.settled.is_set():
            self.settled.set()
            self._report([])

    def _back_off(self) -> None:
        self._silence.fail(time.monotonic())
        self._changed.update(self._watched)  # so that it answers, or fails again

    def _tell_of_silence(self, error: TransientError) -> None:
        text = f"{type(self._executor).__name__} does not answer, and is asked again: {error.line}"
        waiting = [*self._doubted(), *self._offers.attempts()]
        delayed = [Delayed(tuple(waiting), Reason(ReasonKind.WAITING, text))] if waiting else []
        self._report([Warned(text), *delayed])

    def _doubted(self) -> list[Attempt]:
        return [attempt for attempt, handle in self._doubts.items() if handle is None]

    def _take(self) -> None:
        while self._commands:
            name, argument = self._commands.popleft()
            if name == "submit":
                self._offers.add(argument)  # type: ignore[arg-type]
                self._withdrawn.difference_update(argument)  # type: ignore[arg-type]
                self._held_back = False
            elif name == "adopt":
                self._doubts.update(argument)  # type: ignore[call-overload]
                self._adopted = True
            elif name == "cancel":
                for handle in argument:  # type: ignore[attr-defined]
                    self._cancels.setdefault(handle, False)
            elif name == "kill":
                self._cancels = dict.fromkeys(self._watched, True)
            elif name == "withdraw":
                self._withdraw(argument)  # type: ignore[arg-type]
            elif name == "release":
                self._leftovers.add(argument)  # type: ignore[arg-type]
            elif name == "clear":
                self._leftovers.inherit(argument)  # type: ignore[arg-type]
                self._adopted = True
            else:
                self._stopping = True

    def _withdraw(self, attempts: set[Attempt]) -> None:
        here = self._offers.take_back(attempts)
        self._withdrawn |= attempts - here
        if here:
            self._report([Withdrawn(tuple(sorted(here)))])

    def _serve(self, backend: Backend) -> None:
        if self._doubts:
            self._find(backend)
        if self._can_offer():
            self._offer(backend)
        self._end_jobs(backend)
        if self._changed:
            self._poll(backend)
        self._let_go(backend)

    def _end_jobs(self, backend: Backend) -> None:
        for end, hurried in ((backend.cancel, False), (backend.kill, True)):
            if handles := [handle for handle, at_once in self._cancels.items() if at_once is hurried]:
                end(handles)
        self._cancels.clear()

    def _let_go(self, backend: Backend) -> None:
        released = self._leftovers.release(backend, self._build)
        if released and self._remaining:
            self._report([Released(released)])

    def _release(self, backend: Backend) -> None:
        """Do what was asked last; tried a few times, since nobody is left to ask again but the next driver."""
        left = _LAST_TRIES
        while True:
            left -= 1
            try:
                self._end_jobs(backend)
                self._let_go(backend)
                return
            except Exception as error:  # whatever a plugin raises is the plugin's
                if not left or not isinstance(error, TransientError):
                    self._report([Warned(f"{type(self._executor).__name__}: {_words(error)}")])
                    return
            self._woken.clear()
            self._woken.wait(FIRST_SECONDS)

    def _find(self, backend: Backend) -> None:
        """Settle every doubt: adopt what is there, offer what is not."""
        submissions: dict[Key, tuple[Attempt, Handle | None]] = {}
        jobs: list[Submission] = []
        events: list[Event] = []
        for (job, attempt), handle in list(self._doubts.items()):
            try:
                submission = self._build(job, attempt)
            except UsageError as error:
                events.append(Warned(f"job {job!r} cannot be looked for: {error.line}"))
                del self._doubts[job, attempt]
                continue
            jobs.append(submission)
            submissions[submission.key] = ((job, attempt), handle)
        found = backend.find(jobs)
        for submission in jobs:
            name, handle = submissions[submission.key]
            known = found.get(submission.key) or handle
            if known is not None:
                self._watch(known, submission)
                events.append(Submitted(*name, known, self._remaining))
            elif self._submits and name not in self._withdrawn:
                self._offers.add_built(submission)
                self._held_back = False
            else:
                events.append(Withdrawn((name,)))
            del self._doubts[name]
        if events:
            self._report(events)

    def _offer(self, backend: Backend) -> None:
        """Submit until all is taken, a limit is reached, or somebody wants something else."""
        largest = self._able.largest_batch or _CHUNK
        while self._offers and not self._held_back and not self._commands:
            jobs, events = self._offers.next(largest)
            if events:
                self._report(events)
            if not jobs:
                continue
            self._check()
            # From here on each of them may have been taken, until its answer says otherwise.
            unanswered = {job.key: job for job in jobs}
            try:
                for key, answer in backend.submit(jobs):
                    self._answered(unanswered.pop(key), answer)
                    if isinstance(answer, Deferred):
                        self._hold_back(answer.reason)
                        break
            except UsageError as error:
                for job in unanswered.values():
                    self._answered(job, Rejected(Reason(ReasonKind.REJECTED, error.line)))
            except Exception as error:
                self._tell()
                if isinstance(error, TransientError) and error.nothing_done:
                    raise
                for key in unanswered:
                    self._doubts[key.job, key.attempt] = None
                self._offers.drop(unanswered)
                if not isinstance(error, TransientError):
                    self._refuse_defect(backend, error)
                    return
                raise
            self._tell()
            self._poll(backend)

    def _tell(self) -> None:
        """Report the answers that were kept back, so that the engine writes many at once."""
        answers, self._answers, self._told_at = self._answers, [], time.monotonic()
        self._report(answers)

    def _answered(self, job: Submission, answer: Answer) -> None:
        name, attempt = job.key.job, job.key.attempt
        if isinstance(answer, Deferred):
            return
        self._offers.answered(job)
        if isinstance(answer, Accepted):
            self._limit.succeed()
            self._watch(answer.handle, job)
            self._answers.append(Submitted(name, attempt, answer.handle, self._remaining))
        else:
            self._answers.append(Refused(name, attempt, answer.reason))
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._tell()

    def _hold_back(self, reason: Reason) -> None:
        """Say once why the rest waits; they are offered again when a job ends, or after a pause."""
        self._tell()
        self._held_back = True
        self._limit.fail(time.monotonic())
        self._report([Delayed(tuple(self._offers.attempts()), reason)])

    def _refuse_defect(self, backend: Backend, error: Exception) -> None:
        """A backend that breaks while submitting would break again: adopt what it took, refuse the rest."""
        submits, self._submits = self._submits, False
        doubted = list(self._doubts)
        try:
            self._find(backend)
        finally:
            self._submits = submits
        watched = {(one.job, one.attempt) for one in self._watched.values()}
        reason = Reason(ReasonKind.REJECTED, f"{type(self._executor).__name__} is broken: {_words(error)}")
        self._report([Refused(*attempt, reason) for attempt in doubted if attempt not in watched])

    def _watch(self, handle: Handle, job: Submission) -> None:
        self._watched.setdefault(handle, Watched(job))
        if not self._able.shares_files:
            self._logs.add(handle, job)
        self._changed.add(handle)

    def _poll(self, backend: Backend) -> None:
        asked = [handle for handle in self._changed if handle in self._watched]
        self._changed.clear()
        if not asked:
            return
        try:
            seen = backend.poll(asked)
        except BaseException:
            self._changed.update(asked)
            raise
        events: list[Event] = []
        told: dict[Handle, Observation] = {}
        lost: list[Handle] = []
        for handle in asked:
            watched = self._watched[handle]
            observation = seen.get(handle, UNKNOWN)
            if not observation.members:
                self._unknown.add(handle)
                lost += [handle] * watched.is_lost(time.monotonic())
                continue
            if wrong := watched.miscount(observation):
                events.append(Warned(f"{type(self._executor).__name__} is broken: {wrong}"))
                continue
            watched.is_known()
            self._unknown.discard(handle)
            if self._logs.has_new(handle, observation):
                told[handle] = observation
            else:
                events += self._observed(handle, observation)
        if events:
            self._report(events)
        if told:
            self._collect(backend, told)
        for handle in lost:
            self._lose(backend, handle)

    def _observed(self, handle: Handle, seen: Observation) -> list[Event]:
        """Take in what was seen of an attempt; return what there is to say of it."""
        watched = self._watched[handle]
        is_news, watched.last = seen != watched.last, seen
        if seen.is_over:
            del self._watched[handle]
            self._held_back = False
        return [Observed(watched.job, watched.attempt, seen.incarnation, seen.members, seen.reason)] if is_news else []

    def _collect(self, backend: Backend, told: dict[Handle, Observation]) -> None:
        """Say what was seen, and bring logs: who is told that a job has ended finds its whole log here."""
        running = {handle: seen for handle, seen in told.items() if not seen.is_over}
        ended = {handle: seen for handle, seen in told.items() if seen.is_over}
        self._report([event for handle, seen in running.items() for event in self._observed(handle, seen)])
        for handle, seen in list(ended.items()):
            try:
                self._logs.bring(backend, handle, seen.incarnation, ended=True)
            except BaseException:
                self._changed.update(ended)
                raise
            self._report(self._observed(handle, ended.pop(handle)))
        self._logs.follow(backend, running)

    def _lose(self, backend: Backend, handle: Handle) -> None:
        """Give a job up, with what there is of its log."""
        watched = self._watched[handle]
        self._logs.bring(backend, handle, watched.last.incarnation if watched.last else 0, ended=True)
        del self._watched[handle]
        self._unknown.discard(handle)
        self._report([Lost(watched.job, watched.attempt)])

    def _rest(self, backend: Backend) -> None:
        """Wait until something changed here or there."""
        now = time.monotonic()
        silent = self._silence.left(now)
        limit = silent or (self._limit.left(now) if self._held_back else _LONGEST_WAIT)
        if self._unknown:
            limit = min(limit, self._able.poll_interval_seconds)
        if self._watched and self._able.wait and not silent:
            self._changed.update(backend.wait(self._watched.keys(), limit))
        elif self._watched and not silent:
            self._woken.wait(min(limit, self._able.poll_interval_seconds))
            self._changed.update(self._watched)
        else:
            self._woken.wait(limit)
        self._changed |= self._unknown
        if self._held_back and not self._limit.left(time.monotonic()):
            self._held_back = False


def _words(error: Exception) -> str:
    if isinstance(error, NemorunError):
        return error.line
    text = str(error).strip().replace("\n ", "")
    return f"{type(error).__name__}: {text}"
