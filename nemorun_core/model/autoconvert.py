"""`autoconvert`: a function that makes an object, used as one that makes its Config."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar, overload

from nemorun_core.errors import UsageError
from nemorun_core.model.buildable import Config, Partial
from nemorun_core.model.graph import Copier
from nemorun_core.model.target import readable_name

__all__ = ["autoconvert"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def autoconvert(fn: Callable[P, T], *, partial: Literal[False] = False) -> Callable[P, Config[T]]: ...
@overload
def autoconvert(fn: Callable[P, T], *, partial: Literal[True]) -> Callable[P, Partial[T]]: ...
@overload
def autoconvert(
    fn: None = None, *, partial: Literal[False] = False
) -> Callable[[Callable[P, T]], Callable[P, Config[T]]]: ...
@overload
def autoconvert(fn: None = None, *, partial: Literal[True]) -> Callable[[Callable[P, T]], Callable[P, Partial[T]]]: ...
def autoconvert(fn: Callable[..., object] | None = None, *, partial: bool = False) -> object:
    """Turn a function that returns a dataclass or attrs instance into one that returns the Config of it.

    The function runs as it is; what it returns is taken apart into the fields that its constructor takes, as instances
    among the arguments of a Partial are. A Config or Partial that it returns is passed on.

    Args:
        partial: return a Partial of the class instead, to be given the rest of its arguments where it is called.

    Raises:
        UsageError: by the new function, where it returns anything else.
    """
    if fn is None:
        return functools.partial(autoconvert, partial=partial)

    @functools.wraps(fn)
    def converted(*args: object, **kwargs: object) -> object:
        made = Copier(deep=False).copy(fn(*args, **kwargs))
        if partial and isinstance(made, Config):
            return Partial(made.__target__, *made.__rest__, **made.__arguments__)  # type: ignore[arg-type]
        if isinstance(made, (Config, Partial)):
            return made
        raise UsageError(
            f"{readable_name(fn)} returned {made!r}, and autoconvert takes a dataclass or attrs instance apart.",
            hint="Return run.Config(cls, …) from it, and leave autoconvert out.",
        )

    return converted
