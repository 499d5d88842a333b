"""Config and Partial: what to call with which arguments, as values that can be read, changed, compared and sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from nemorun_core.errors import UsageError
from nemorun_core.model import arguments as _arguments
from nemorun_core.model import graph as _graph
from nemorun_core.model import target as _target
from nemorun_core.model.task import Command, Place, Task

__all__ = ["Config", "Partial"]

T = TypeVar("T")
_Self = TypeVar("_Self", bound="_Buildable")


class _Buildable(_graph.Node):
    """Arguments as attributes. A name that is also a method's is reached as an item: `task["clone"]`."""

    __slots__ = ()

    def __init__(self, target: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        _arguments.check_target(target)
        _graph.set_up(self, target)
        _arguments.bind(self, args, kwargs)

    # Arguments have the types that the target gives them, which no checker can follow from here: hence Any.
    def __getitem__(self, name: str) -> Any:
        if name in self.__arguments__:
            return self.__arguments__[name]
        if name == _arguments.rest_name(self):
            return self.__rest__
        return _arguments.default_of(self, name)

    def __setitem__(self, name: str, value: object) -> None:
        _arguments.check_name(self, name)
        copied = _graph.Copier(deep=False).copy(value, (None, self, name))
        if name == _arguments.rest_name(self):
            if not isinstance(copied, (list, tuple)):
                raise UsageError(f"{name} takes a list, found {copied!r}", hint="Write it as a list.")
            self.__rest__[:] = copied
            return
        self.__defaults__.pop(name, None)
        self.__arguments__[name] = copied

    def __delitem__(self, name: str) -> None:
        if name == _arguments.rest_name(self):
            self.__rest__.clear()
            return
        if name not in self.__arguments__ and name not in self.__defaults__:
            _arguments.check_name(self, name)
        self.__arguments__.pop(name, None)
        self.__defaults__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: object) -> None:
        self._check_attribute(name)
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self._check_attribute(name)
        del self[name]

    def _check_attribute(self, name: str) -> None:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if hasattr(type(self), name):
            raise UsageError(f"{name!r} is a method of {type(self).__name__}", hint=f"Use task[{name!r}] = ….")

    def __dir__(self) -> list[str]:
        signature = _arguments.signature_of(self)
        names = {*self.__arguments__, *(signature.parameters if signature else ())}
        return sorted(names.union(object.__dir__(self)))

    def __eq__(self, other: object) -> bool:
        from nemorun_core.model.values import equal

        return equal(self, other) if isinstance(other, _graph.Node) else NotImplemented

    def __repr__(self) -> str:
        from nemorun_core.model.show import shown

        return shown(self)

    def clone(self: _Self) -> _Self:
        """Copy it and all that it holds, so that changes to either do not show in the other.

        A Config held twice is held twice by the copy. Other values, as functions, are the same objects.
        """
        return self.__deepcopy__({})

    def __copy__(self: _Self) -> _Self:
        return self.__deepcopy__({})

    def __deepcopy__(self: _Self, memo: dict[int, object]) -> _Self:
        copied = _graph.Copier(deep=True, memo=memo).copy(self)
        assert isinstance(copied, type(self))
        return copied

    def __getstate__(self) -> tuple[object, ...]:
        return self.__target__, _arguments.settled(self), self.__rest__, self.__positional__

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        target, arguments, rest, positional = state
        _graph.set_up(self, target, positional)
        self.__arguments__.update(arguments)
        self.__rest__.extend(rest)


class Config(_Buildable, Generic[T]):
    """An object to be built where the task runs: a class or function, and its arguments.

    Positional arguments are bound to the target's signature. Dataclass and attrs instances among the arguments become
    Config; plain lists, tuples, sets and dicts are copied. A Config that is used twice is built once.

    Raises:
        UsageError: the target is no function or class, or does not take such an argument.
    """

    __slots__ = ()
    __kind__: ClassVar[str] = "config"

    def __init__(self, target: Callable[..., T], /, *args: object, **kwargs: object) -> None:
        super().__init__(target, *args, **kwargs)

    def __build__(self, target: Callable[..., object], args: list[object], kwargs: dict[str, object]) -> object:
        return target(*args, **kwargs)


class Partial(_Buildable, Task, Generic[T]):
    """A function to be called, and its arguments. As an argument of another it becomes a `functools.partial`.

    Arguments are as in Config. Those still missing are refused when the task is recorded.
    """

    __slots__ = ()
    __kind__: ClassVar[str] = "partial"

    def __init__(self, target: Callable[..., T], /, *args: object, **kwargs: object) -> None:
        super().__init__(target, *args, **kwargs)

    def __build__(self, target: Callable[..., object], args: list[object], kwargs: dict[str, object]) -> object:
        return functools.partial(target, *args, **kwargs)

    def default_name(self) -> str:
        """Name it `module.qualname` of the function."""
        return _target.job_name(self.__target__)

    def call(self) -> T:
        """Build what the task holds and call the function, in this process.

        Raises:
            UsageError: a required argument is missing, or the task was read from a record and is not resolved.
        """
        args, kwargs = _graph.build_arguments(self)
        result: T = self.__target__(*args, **kwargs)  # type: ignore[operator]  # build_arguments has looked
        return result

    def command(self, place: Place) -> Command:
        """Start the standalone runner on a file that holds the task."""
        import json

        record = self.to_record()
        payload = {
            "schema": 1,
            "name": self.default_name(),
            **record,
            "sys_path": list(place.sys_path),
            "bundle": list(place.bundle),
            "objects": place.objects,
            "support": place.support,
        }
        name = f"call.{place.member}.json"
        content = json.dumps(payload, indent=1).encode()
        return Command(argv=(place.python, place.runner, f"{place.folder}/{name}"), files={name: content})

    def objects(self) -> Mapping[str, bytes]:
        """Pickles of what is sent by value; none for what was itself read from a record."""
        from nemorun_core.model.values import encode

        return encode(self).objects

    def to_record(self) -> dict[str, object]:
        """Write the task as flat JSON.

        Raises:
            UsageError: something in it cannot be written and read back equal, holds itself, or a required argument is
                missing; with its path.
        """
        from nemorun_core.model.values import encode

        return encode(self).record

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Partial[T]:
        """Read what `to_record` wrote. Functions and classes stay names until `resolve`.

        Raises:
            MalformedRecord: it is not what `to_record` writes.
        """
        from nemorun_core.model.decoding import decode
        from nemorun_core.model.records import malformed

        task = decode(record)
        if not isinstance(task, cls):
            raise malformed("$.root", "a partial", record.get("root"))
        return task
