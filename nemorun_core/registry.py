"""Entry points become classes and hook modules: read as data, imported when their name is used, guarded, reported."""

import functools
import importlib
import json
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from nemorun_core.errors import Defect, UsageError
from nemorun_core.installed import points
from nemorun_core.model.definition import Kinded
from nemorun_core.model.plain import read_plainly, written_plainly

if TYPE_CHECKING:
    import cattrs
    import pluggy

    from nemorun_core.contracts.executor import Executor
    from nemorun_core.contracts.plugin import Plugin
    from nemorun_core.model.task import Task

__all__ = ["GROUPS", "Found", "Hook", "Registry", "default_registry", "import_found"]

T = TypeVar("T")

CONTRACT = 1
GROUPS = (
    "nemorun.executors",
    "nemorun.tasks",
    "nemorun.launchers",
    "nemorun.packagers",
    "nemorun.plugins",
    "nemorun.tunnels",
)
_GROUP_OF = {"Launcher": "nemorun.launchers", "Packager": "nemorun.packagers"}
_SWITCH = "NEMORUN_PLUGINS_DISABLE"


class Found(NamedTuple):
    """One entry point: its name, where its class is, and the distribution (`name version`) that brings it."""

    name: str
    value: str
    distribution: str

    @property
    def class_name(self) -> str:
        return self.value.rpartition(":")[2]


class Hook(NamedTuple):
    """One implementation of one hook."""

    found: Found
    call: Callable[..., object]


class Registry:
    """What is installed. Reads metadata when first asked, and imports a module only when its name is used."""

    def __init__(self, disabled: frozenset[str] = frozenset()) -> None:
        self._disabled = disabled
        self._classes: dict[tuple[str, str], type] = {}

    @functools.cached_property
    def _entry_points(self) -> Mapping[str, Mapping[str, tuple[Found, ...]]]:
        groups: dict[str, dict[str, tuple[Found, ...]]] = {}
        for point in points():
            names = groups.setdefault(point.group, {})
            found = Found(name=point.name, value=point.value, distribution=point.distribution)
            others = names.get(point.name, ())
            if found not in others:
                names[point.name] = (*others, found)
        return groups

    def found(self, group: str) -> list[Found]:
        """Return the entry points of a group by name; of one name from two distributions, both."""
        names = self._entry_points.get(group, {})
        return [found for name in sorted(names) for found in names[name]]

    def named(self, group: str, name: str) -> Found | None:
        """Return the entry point of that name, None if there is none.

        Raises:
            UsageError: two distributions bring it; both are named.
        """
        candidates = self._entry_points.get(group, {}).get(name, ())
        if len(candidates) > 1:
            raise UsageError(
                f"{group} {name!r} is brought by {' and by '.join(found.distribution for found in candidates)}.",
                hint=f"Uninstall one of them: pip uninstall {candidates[1].distribution.split()[0]}",
            )
        return candidates[0] if candidates else None

    def load(self, group: str, name: str) -> type:
        """Import and return the class of an entry point.

        Raises:
            UsageError: nothing of that name is installed; says what is, and what to install.
            Defect: it is installed and broken; names its distribution.
        """
        known = self._classes.get((group, name))
        if known is not None:
            return known
        found = self.named(group, name)
        if found is None:
            installed = ", ".join(sorted(self._entry_points.get(group, {}))) or "none"
            what = group.removeprefix("nemorun.").removesuffix("s")
            raise UsageError(
                f"no {what} {name!r} is installed (installed: {installed}).",
                hint=f"pip install nemorun-{name}",
            )
        loaded = import_found(found)
        if not isinstance(loaded, type):
            raise Defect(f"{found.value} is no class.", distribution=found.distribution)
        contract = getattr(loaded, "contract", CONTRACT)
        if contract != CONTRACT:
            raise Defect(
                f"{found.class_name} of {found.distribution} follows contract {contract}; this nemorun has {CONTRACT}.",
                hint=f"pip install --upgrade nemorun-core {found.distribution.split()[0]}",
                distribution=found.distribution,
            )
        self._classes[group, name] = loaded
        return loaded

    def class_named(self, class_name: str) -> type | None:
        """Return the class that `run.<class_name>` finds, None if no installed plugin brings one.

        Raises:
            UsageError: two distributions bring it; both are named.
        """
        matches = [(group, found) for group in GROUPS for found in self.found(group) if found.class_name == class_name]
        if len({found.distribution for _, found in matches}) > 1:
            raise UsageError(
                f"{class_name} is brought by {' and by '.join(found.distribution for _, found in matches)}.",
                hint=f"Uninstall one of them: pip uninstall {matches[1][1].distribution.split()[0]}",
            )
        return self.load(matches[0][0], matches[0][1].name) if matches else None

    def class_names(self) -> list[str]:
        """Return the names that `run.<name>` finds in plugins."""
        return sorted({found.class_name for group in GROUPS for found in self.found(group)})

    def kind(self, group: str, cls: type) -> tuple[str, str]:
        """Return how records name a class: the entry point's name with its distribution, else `module:qualname`."""
        for found in self.found(group):
            if found.value == f"{cls.__module__}:{cls.__qualname__}" or (
                found.class_name == cls.__name__ and self.load(group, found.name) is cls
            ):
                return found.name, found.distribution
        return f"{cls.__module__}:{cls.__qualname__}", ""

    def resolve(self, group: str, kinded: Kinded) -> type:
        """Return the class of a record; a class without an entry point is imported by its path.

        Raises:
            UsageError: it is not installed here, with what to install.
        """
        module, _, name = kinded.kind.partition(":")
        if not name:
            if self.named(group, kinded.kind) is None and kinded.distribution:
                package, _, version = kinded.distribution.partition(" ")
                raise UsageError(
                    f"this experiment needs {kinded.kind!r} of {package} (it had {version}), which is not installed.",
                    hint=f"pip install {package}",
                )
            return self.load(group, kinded.kind)
        try:
            value: object = sys.modules.get(module) or importlib.import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{kinded.kind} cannot be loaded in this process: {error}.",
                hint="Run this where that module can be imported.",
            ) from None
        if not isinstance(value, type):
            raise UsageError(f"{kinded.kind} is no class.")
        return value

    def record_task(self, task: "Task") -> Kinded:
        """Write a task as a record. Raises UsageError, with the path, for what JSON cannot hold."""
        kind, distribution = self._task_kind(type(task))
        return Kinded(kind=kind, distribution=distribution, fields=task.to_record())

    def read_task(self, kinded: Kinded) -> "Task":
        """Make a task of its record; nothing that it refers to is imported."""
        from nemorun_core.model.task import Script, Task

        if kinded.kind == "script":
            cls: type = Script
        elif kinded.kind == "partial":
            from nemorun_core.model.buildable import Partial

            cls = Partial
        else:
            cls = self.resolve("nemorun.tasks", kinded)
        if not issubclass(cls, Task):
            raise UsageError(f"{kinded.kind} is no task.")
        return cls.from_record(kinded.fields)

    def record(self, group: str, value: object) -> Kinded:
        """Write an executor or plugin as a record. Raises UsageError for fields that do not read back equal."""
        kind, distribution = self.kind(group, type(value))
        plain = written_plainly(value)
        if plain is not None and read_plainly(plain, type(value)) == value:
            return Kinded(kind=kind, distribution=distribution, fields=plain)
        from nemorun_core.model.convert import structure
        from nemorun_core.model.records import MalformedRecord

        fields = self.converter.unstructure(value)
        try:
            if structure(json.loads(json.dumps(fields)), type(value), self.converter) != value:
                raise ValueError("it reads back different")
        except MalformedRecord as error:
            raise UsageError(f"{type(value).__name__}: {error}.", hint="Give each field a value of its type.") from None
        except (TypeError, ValueError) as error:
            raise UsageError(f"{type(value).__name__} cannot be written down: {error}.") from None
        return Kinded(kind=kind, distribution=distribution, fields=fields)

    @functools.cached_property
    def converter(self) -> "cattrs.Converter":
        """The core's converter, and how values of plugins stand within values: as records of their own."""
        from cattrs.gen import make_dict_unstructure_fn

        from nemorun_core.contracts.launcher import Launcher
        from nemorun_core.contracts.packager import Packager
        from nemorun_core.model.convert import converter as plain_converter

        made = plain_converter.copy()

        def write(value: object) -> object:
            kind, distribution = self.kind(_GROUP_OF[base_of(type(value))], type(value))
            fields = make_dict_unstructure_fn(type(value), made)(value)
            return {"kind": kind, "distribution": distribution, "fields": fields}

        def base_of(cls: object) -> str:
            bases = (Launcher, Packager)
            return next((b.__name__ for b in bases if isinstance(cls, type) and issubclass(cls, b)), "")

        def is_nested(cls: object) -> bool:
            return bool(base_of(cls))

        made.register_unstructure_hook_func(is_nested, write)
        for group, base in (("nemorun.launchers", Launcher), ("nemorun.packagers", Packager)):

            def read(data: object, _: object, group: str = group, base: type = base) -> object:
                return data if data is None or isinstance(data, str) else self._read(group, _kinded(data), base)

            wanted = (base, str | base | None)
            made.register_structure_hook_func(functools.partial(operator.contains, wanted), read)
        return made

    def read_executor(self, kinded: Kinded) -> "Executor":
        """Make an executor of its record. Raises UsageError if its class is not installed."""
        from nemorun_core.contracts.executor import Executor

        return self._read("nemorun.executors", kinded, Executor)

    def read_plugin(self, kinded: Kinded) -> "Plugin":
        """Make a plugin of its record. Raises UsageError if its class is not installed."""
        from nemorun_core.contracts.plugin import Plugin

        return self._read("nemorun.plugins", kinded, Plugin)

    def _read(self, group: str, kinded: Kinded, base: type[T]) -> T:
        cls = self.resolve(group, kinded)
        if not issubclass(cls, base):
            raise UsageError(f"{kinded.kind} is no {base.__name__}.")
        made = read_plainly(kinded.fields, cls)
        if made is not None:
            return made
        from nemorun_core.model.convert import structure
        from nemorun_core.model.records import MalformedRecord

        try:
            return structure(kinded.fields, cls, self.converter)
        except MalformedRecord as error:
            raise UsageError(
                f"the {base.__name__.lower()} {kinded.kind!r} does not fit the one that is installed: {error}.",
                hint=f"Install the version it was written with: {kinded.distribution or kinded.kind}",
            ) from None

    def made(self, group: str, value: object) -> object:
        """Return the plugin that a name stands for, made of its defaults; any other value as it is.

        Raises:
            UsageError: nothing of that name is installed.
        """
        return self.load(group, value)() if isinstance(value, str) else value

    def _task_kind(self, cls: type) -> tuple[str, str]:
        if cls.__module__.startswith("nemorun_core."):
            return cls.__name__.lower(), ""
        return self.kind("nemorun.tasks", cls)

    def hooks(self, name: str) -> list[Hook]:
        """Return the implementations of a hook in the order in which they are called.

        A hook module that cannot be imported is left out, with one warning a process.
        """
        return list(self._hooks.get(name, ()))

    @functools.cached_property
    def _hooks(self) -> Mapping[str, tuple[Hook, ...]]:
        if not self.found("nemorun.hooks") or "*" in self._disabled:
            return {}
        import pluggy

        from nemorun_core import hookspecs

        manager = pluggy.PluginManager("nemorun")
        manager.add_hookspecs(hookspecs)
        by_name: dict[str, Found] = {}
        for found in self.found("nemorun.hooks"):
            if found.name in self._disabled:
                continue
            try:
                manager.register(import_found(found), name=found.name)
                manager.check_pending()
            except (Defect, pluggy.PluginValidationError, ValueError) as error:
                if manager.has_plugin(found.name):
                    manager.unregister(name=found.name)
                self.broken.append(f"{found.distribution}: {error}")
                warnings.warn(
                    f"the hooks {found.name!r} of {found.distribution} are left out: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            by_name[found.name] = found
        return {
            hook: tuple(_in_order(getattr(manager.hook, hook).get_hookimpls(), by_name))
            for hook in ("nemorun_prepare_job", "nemorun_event", "nemorun_provenance")
        }

    @functools.cached_property
    def broken(self) -> list[str]:
        """What could not be imported so far, one line each, with the distribution."""
        return []

    def versions(self) -> dict[str, str]:
        """Return the installed distributions with nemorun entry points, name to version."""
        pairs = (
            found.distribution.partition(" ")[::2]
            for names in self._entry_points.values()
            for candidates in names.values()
            for found in candidates
        )
        return dict(sorted(pairs))


def _kinded(data: object) -> Kinded:
    if not isinstance(data, dict) or set(data) != {"kind", "distribution", "fields"}:
        raise ValueError(f"expected the record of a plugin's value, found {data!r}")
    return Kinded(kind=str(data["kind"]), distribution=str(data["distribution"]), fields=dict(data["fields"]))


def _in_order(implementations: "list[pluggy.HookImpl]", by_name: Mapping[str, Found]) -> Iterator[Hook]:
    def place(implementation: "pluggy.HookImpl") -> tuple[int, str]:
        return (-1 if implementation.tryfirst else 1 if implementation.trylast else 0, implementation.plugin_name)

    for implementation in sorted(implementations, key=place):
        yield Hook(found=by_name[implementation.plugin_name], call=implementation.function)


def import_found(found: Found) -> object:
    """Import and return what an entry point names. Raises Defect, with the distribution, where that fails."""
    module, _, name = found.value.partition(":")
    try:
        value: object = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            value = getattr(value, part)
    except Exception as error:  # whatever a plugin's import raises is the plugin's
        raise Defect(
            f"{found.value} of {found.distribution} cannot be loaded: {type(error).__name__}: {error}.",
            hint=f"Repair or remove it: pip install --force-reinstall {found.distribution.split()[0]}",
            distribution=found.distribution,
        ) from error
    return value


@functools.cache
def default_registry() -> Registry:
    """Return this process's registry; `NEMORUN_PLUGINS_DISABLE=name,...` (`*`: all) switches hook modules off."""
    return Registry(frozenset(filter(None, os.environ.get(_SWITCH, "").split(","))))


def plugin_attribute(name: str) -> type:
    """Return the class that `run.<name>` names in an installed plugin; for the package's `__getattr__`.

    Raises:
        AttributeError: no installed plugin brings it; with what to install, where that can be known.
    """
    loaded = default_registry().class_named(name)
    if loaded is not None:
        return loaded
    package = _FIRST_PARTY.get(name)
    hint = f": it comes with `pip install {package}`" if package else ""
    # With name and module Python adds its own "Did you mean".
    raise AttributeError(
        f"module 'nemorun_core' has no attribute {name!r}{hint}", name=name, obj=sys.modules["nemorun_core"]
    )


_FIRST_PARTY = {
    "DockerExecutor": "nemorun-docker",
    "EnvVars": "nemorun-env",
    "GitArchivePackager": "nemorun-git",
    "HybridPackager": "nemorun-git",
    "KubernetesExecutor": "nemorun-kubernetes",
    "LocalExecutor": "nemorun-local",
    "LocalTunnel": "nemorun-slurm",
    "PatternPackager": "nemorun-git",
    "SSHTunnel": "nemorun-slurm",
    "SlurmExecutor": "nemorun-slurm",
    "Torchrun": "nemorun-torchrun",
}
