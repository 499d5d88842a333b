"""Where an experiment's records stand on disk, and how its id is claimed and found."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from nemorun_core.errors import StoreError, UsageError
from nemorun_core.model.definition import SCHEMA, Definition, JobDefinition
from nemorun_core.model.garbage import uncollected
from nemorun_core.model.key import folder_name
from nemorun_core.model.records import MalformedRecord
from nemorun_core.store.files import guarded, make_folder, read_text, sync_folder, write_atomically

__all__ = ["Folder", "Home", "Summary"]

_TITLE_LIMIT = 100
_DEFINITION = "experiment.json"


class Folder(NamedTuple):
    """One experiment's folder. The paths in it are fixed; see `docs/reference/disk.md`."""

    path: str

    @property
    def definition(self) -> str:
        return os.path.join(self.path, _DEFINITION)

    @property
    def journal(self) -> str:
        return os.path.join(self.path, "journal.jsonl")

    @property
    def lock(self) -> str:
        return os.path.join(self.path, "lock")

    @property
    def requests(self) -> str:
        return os.path.join(self.path, "requests")

    @property
    def support(self) -> str:
        return os.path.join(self.path, "support")

    @property
    def objects(self) -> str:
        return os.path.join(self.path, "objects")

    @property
    def bundles(self) -> str:
        return os.path.join(self.path, "bundles")

    @property
    def summary(self) -> str:
        return os.path.join(self.path, "summary.json")

    def job(self, job: JobDefinition) -> str:
        return os.path.join(self.path, job.folder)

    def write_definition(self, definition: Definition) -> None:
        """Freeze the definition: written once, synced.

        Raises:
            StoreError: the disk refused.
        """
        text = json.dumps(definition.to_json(), separators=(",", ":"))
        write_atomically(self.definition, text.encode("ascii"))
        with guarded("sync", self.path):
            sync_folder(os.path.dirname(self.path))

    def read_definition(self) -> Definition:
        """Return the definition; nothing in it is imported or run.

        Raises:
            StoreError: it is missing, torn, of another tool or of a newer schema.
        """
        from nemorun_core.model.convert import structure

        text = read_text(self.definition)
        if text is None:
            raise StoreError(
                f"{self.path} holds no {_DEFINITION}: it was never run, or belongs to another tool.",
                hint="`nemorun experiment list` shows the experiments here.",
            )
        try:
            with uncollected():
                data = json.loads(text)
            if not isinstance(data, dict):
                raise MalformedRecord(f"expected an object, found {type(data).__name__}")
            found = data.get("schema")
            if isinstance(found, int) and found > SCHEMA:
                raise StoreError(
                    f"{self.definition} has schema {found}; this nemorun reads up to {SCHEMA}.",
                    hint="Upgrade: pip install --upgrade nemorun-core",
                )
            with uncollected():
                return structure(data, Definition)
        except (MalformedRecord, ValueError, RecursionError) as error:
            raise StoreError(
                f"{self.definition} is no readable definition: {error}.",
                hint="Restore it from a copy, or remove the folder.",
            ) from None


class Summary(NamedTuple):
    """One line of a catalog: an experiment that was run."""

    id: str
    title: str
    created: str
    folder: Folder


class Home(NamedTuple):
    """The folder that holds the experiments of one user; each title has a folder of its own in it."""

    path: str

    @classmethod
    def locate(cls, base_dir: str | os.PathLike[str] | None = None) -> "Home":
        """Return `base_dir`, else `$NEMORUN_HOME`, else `~/.nemo_run`; its sub-folder `experiments` is used."""
        root = os.fspath(base_dir) if base_dir is not None else os.environ.get("NEMORUN_HOME") or "~/.nemo_run"
        return cls(os.path.join(os.path.abspath(os.path.expanduser(root)), "experiments"))

    @property
    def bundles(self) -> str:
        """The folder of the bundles that experiments share."""
        return os.path.join(os.path.dirname(self.path), "bundles")

    def claim(self, title: str, experiment_id: str | None = None) -> tuple[str, Folder]:
        """Make the folder of a new experiment and return its id with it; no other process gets the same one.

        The id is `<title>_<seconds>`, of the next second where that is taken, unless `experiment_id` says otherwise.

        Raises:
            UsageError: `experiment_id` is taken or cannot be a folder's name.
            StoreError: the disk refused.
        """
        name = folder_name(title, _TITLE_LIMIT)
        parent = os.path.join(self.path, name)
        if experiment_id is not None and folder_name(experiment_id, 200) != experiment_id:
            raise UsageError(
                f"id={experiment_id!r} cannot be a folder's name.",
                hint="Use letters, digits, '.', '_', ' ' and '-', at most 200, not beginning with '.', '-' or ' '.",
            )
        make_folder(parent)
        if experiment_id is not None and (found := self._holding(experiment_id)):
            raise UsageError(
                f"id={experiment_id!r} is taken by {found}.",
                hint="Choose another id, or look at it with Experiment.from_id.",
            )
        second = int(time.time())
        while True:
            claimed = experiment_id or f"{name}_{second}"
            folder = os.path.join(parent, claimed)
            with guarded("make the folder", folder):
                try:
                    os.mkdir(folder, 0o700)
                    return claimed, Folder(folder)
                except FileExistsError:
                    if experiment_id is not None:
                        raise UsageError(
                            f"id={experiment_id!r} is taken by {folder}.",
                            hint="Choose another id, or look at it with Experiment.from_id.",
                        ) from None
                    second += 1

    def unclaim(self, folder: Folder) -> None:
        """Give back a claim that was never run; does nothing to one that was."""
        with contextlib.suppress(OSError):
            os.rmdir(folder.path)
            os.rmdir(os.path.dirname(folder.path))

    def find(self, experiment_id: str) -> Folder:
        """Return the folder of an experiment that was run.

        Raises:
            UsageError: there is none, with the nearest id; or it belongs to another tool, with its path.
        """
        path = self._holding(experiment_id)
        if path is None:
            raise UsageError(
                f"there is no experiment {experiment_id!r} in {self.path}.{self._nearest(experiment_id)}",
                hint="`nemorun experiment list` shows what is there; --base-dir or NEMORUN_HOME chooses the folder.",
            )
        if not os.path.exists(os.path.join(path, _DEFINITION)):
            raise UsageError(
                f"{path} is no experiment of nemorun: it holds no {_DEFINITION}. Never run, or another tool's.",
                hint="`nemorun experiment list` shows what is there.",
            )
        return Folder(path)

    def folders(self) -> Iterator[tuple[str, Folder]]:
        """Yield id and folder of each experiment that was run, in no order. Folders of other tools are passed over."""
        for parent in _folders(self.path):
            yield from self._under(parent.path)

    def _under(self, parent: str) -> Iterator[tuple[str, Folder]]:
        for entry in _folders(parent):
            if os.path.exists(os.path.join(entry.path, _DEFINITION)):
                yield entry.name, Folder(entry.path)

    def summaries(self, title: str | None = None) -> list[Summary]:
        """Return what was run, oldest first by creation; of one title only, where it is given. Unreadable ones are left
        out: `nemorun experiment status ID` says what ails them."""
        found = []
        own = None if title is None else os.path.join(self.path, folder_name(title, _TITLE_LIMIT))
        for experiment_id, folder in self.folders() if own is None else self._under(own):
            head = _read_head(folder.definition)
            if head is None or (title is not None and head[0] != title):
                continue
            found.append(Summary(id=experiment_id, title=head[0], created=head[1], folder=folder))
        return sorted(found, key=lambda summary: (summary.created, summary.id))

    def _holding(self, experiment_id: str) -> str | None:
        if os.sep in experiment_id or experiment_id in ("", ".", ".."):
            return None
        likely = os.path.join(self.path, experiment_id.rpartition("_")[0], experiment_id)
        if experiment_id.rpartition("_")[0] and os.path.isdir(likely):
            return likely
        for parent in _folders(self.path):
            path = os.path.join(parent.path, experiment_id)
            if os.path.isdir(path):
                return path
        return None

    def _nearest(self, experiment_id: str) -> str:
        import difflib

        near = difflib.get_close_matches(experiment_id, [name for name, _ in self.folders()], n=1)
        return f" Did you mean {near[0]!r}?" if near else ""


def _folders(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=True)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _read_head(path: str) -> tuple[str, str] | None:
    """Return title and creation of a definition without reading its jobs: they stand in its first characters."""
    decoder = json.JSONDecoder()
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read(4096)
        values: dict[str, str] = {}
        for name in ("title", "created"):
            start = text.index(f'"{name}":') + len(name) + 3
            values[name], _ = decoder.raw_decode(text, start)
        return str(values["title"]), str(values["created"])
    except (OSError, ValueError):
        return None
