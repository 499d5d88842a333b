"""Graphs of Config and Partial nodes: their storage, and iterative walks that copy and build them.

A graph may be hundreds of nodes deep, so nothing here recurses from node to node. Plain containers (list, tuple, set,
frozenset, dict) are values without identity: they are copied wherever they occur, and may nest `MAXIMUM_NESTING` deep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Optional

from nemorun_core.errors import UsageError
from nemorun_core.model.target import Unresolved, readable_name

if TYPE_CHECKING:
    import inspect

__all__ = [
    "CONTAINERS",
    "MAXIMUM_NESTING",
    "Copier",
    "Node",
    "Trail",
    "build_arguments",
    "constructor_fields",
    "nesting_error",
    "new_node",
    "path_of",
    "post_order",
    "set_up",
    "transform",
]

CONTAINERS = frozenset({list, tuple, set, frozenset, dict})
MAXIMUM_NESTING = 100
_ATOMS = frozenset({type(None), bool, int, float, str, bytes})

# How a value was reached: the trail of what holds it, the holder, and the name, index or key in the holder.
Trail = Optional[tuple["Trail", object, object]]  # noqa: UP045  # `|` does not take a name that is not bound yet


class Node:
    """Storage of one Config or Partial. Names are dunders, since any other may be an argument's.

    Attributes:
        __target__: what is called; a Reference or Pickled in a definition read from disk.
        __arguments__: explicit arguments by parameter name, in the order given.
        __rest__: what goes to the target's `*args`.
        __positional__: which arguments were given by position; if the target is unresolved, which to pass so.
        __defaults__: default to (copy handed out, copy kept), so that a change can be told from mere reading.
        __shape__: the target's signature, once asked for; False if it has none.
    """

    __slots__ = ("__arguments__", "__defaults__", "__positional__", "__rest__", "__shape__", "__target__")
    __target__: object
    __arguments__: dict[str, object]
    __rest__: list[object]
    __positional__: tuple[str, ...]
    __defaults__: dict[str, tuple[object, object]]
    __shape__: inspect.Signature | bool | None
    __kind__: ClassVar[str]

    def __build__(self, target: Callable[..., object], args: list[object], kwargs: dict[str, object]) -> object:
        """Make of the target what a holder of this node is to get."""
        raise NotImplementedError


def new_node(cls: type[Node], target: object, positional: tuple[str, ...] = ()) -> Node:
    """Make a node without arguments and without looking at its target."""
    node = cls.__new__(cls)
    set_up(node, target, positional)
    return node


def set_up(node: Node, target: object, positional: tuple[str, ...] = ()) -> None:
    """Fill a node's storage, past the attributes that are arguments."""
    put = object.__setattr__
    put(node, "__target__", target)
    put(node, "__arguments__", {})
    put(node, "__rest__", [])
    put(node, "__positional__", positional)
    put(node, "__defaults__", {})
    put(node, "__shape__", None)


def path_of(trail: Trail) -> str:
    """Spell a trail as `$.model.layers[2]`."""
    steps: list[str] = []
    while trail is not None:
        trail, holder, key = trail
        if isinstance(holder, (set, frozenset)):
            steps.append("{…}")
        elif isinstance(key, str) and not isinstance(holder, dict):
            steps.append(f".{key}")
        else:
            steps.append(f"[{key!r}]")
    return "$" + "".join(reversed(steps))


def nesting_error(trail: Trail) -> UsageError:
    """Explain a trail that went too deep: a container within itself, or too many within each other."""
    above: list[tuple[Trail, object]] = []
    step = trail
    while step is not None:
        above.append((step[0], step[1]))
        step = step[0]
    seen: set[int] = set()
    for outer, holder in reversed(above):
        if id(holder) in seen and type(holder) in CONTAINERS:
            return UsageError(f"{path_of(outer)} contains itself", hint="Use a value without cycles.")
        seen.add(id(holder))
    return UsageError(
        f"{path_of(trail)[:60]}… nests more than {MAXIMUM_NESTING} lists, tuples, sets or dicts in each other",
        hint="Flatten the value, or write it to a file and pass the path.",
    )


def transform(value: object, swap: Callable[[object, Trail], object], trail: Trail, depth: int = 0) -> object:
    """Copy a value's plain containers; everything else in it is replaced by what `swap(item, trail)` returns."""
    kind = type(value)
    if kind not in CONTAINERS:
        return swap(value, trail)
    if depth >= MAXIMUM_NESTING:
        raise nesting_error(trail)
    below = depth + 1
    try:
        if isinstance(value, dict):
            return {
                transform(key, swap, (trail, value, key), below): transform(item, swap, (trail, value, key), below)
                for key, item in value.items()
            }
        assert isinstance(value, (list, tuple, set, frozenset))
        items = [transform(item, swap, (trail, value, index), below) for index, item in enumerate(value)]
        return items if kind is list else type(value)(items)
    except TypeError as error:
        raise UsageError(
            f"{path_of(trail)} is a {kind.__name__} keyed by instances that become Config, which has no hash",
            hint="Use a list.",
        ) from error


def constructor_fields(cls: type) -> tuple[tuple[str, str], ...] | None:
    """List (attribute, constructor argument) of an attrs class or dataclass; None for any other class.

    Raises:
        UsageError: its constructor cannot be called with the fields of an instance.
    """
    if hasattr(cls, "__attrs_attrs__"):
        pairs = tuple((field.name, field.alias) for field in cls.__attrs_attrs__ if field.init)
    elif hasattr(cls, "__dataclass_fields__"):
        import dataclasses

        pairs = tuple((field.name, field.name) for field in dataclasses.fields(cls) if field.init)
    else:
        return None
    import inspect

    parameters = inspect.signature(cls).parameters.values()
    names = {alias for _, alias in pairs}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {p.name for p in parameters if p.default is p.empty and p.kind not in variable}
    odd = sorted(needed - names) or sorted(names - {p.name for p in parameters})
    if odd:
        raise UsageError(
            f"an instance of {cls.__qualname__} cannot be rebuilt from its fields: its constructor and they differ "
            f"in {', '.join(odd)}",
            hint=f"Describe it instead: run.Config({cls.__qualname__}, …).",
        )
    return pairs


class Copier:
    """Copies values: plain containers always, dataclass and attrs instances as Config, nodes too if `deep`.

    What was one object stays one object, within all values copied by the same Copier.

    Args:
        deep: whether nodes are copied; if not, they are kept as they are.
        memo: id of a node to its copy, as in `copy.deepcopy`.
        leaf: what to put in place of any other value.
    """

    def __init__(
        self,
        *,
        deep: bool,
        memo: dict[int, object] | None = None,
        leaf: Callable[[object, Trail], object] = lambda value, _: value,
    ) -> None:
        self._deep = deep
        self._leaf = leaf
        self._nodes: dict[int, object] = {} if memo is None else memo
        self._instances: dict[int, tuple[object, Node]] = {}  # the instance is kept, so that its id stays its own
        self._fields: dict[type, tuple[tuple[str, str], ...] | None] = {}
        self._pending: list[tuple[Node, Mapping[str, object], Sequence[object], Trail]] = []

    def copy(self, value: object, trail: Trail = None) -> object:
        """Copy one value.

        Raises:
            UsageError: nested too deep, or an instance cannot become a Config; with the path.
        """
        result = transform(value, self._swap, trail)
        while self._pending:
            copy, arguments, rest, origin = self._pending.pop()
            for name, item in arguments.items():
                copy.__arguments__[name] = transform(item, self._swap, (origin, copy, name))
            copy.__rest__.extend(transform(item, self._swap, (origin, copy, index)) for index, item in enumerate(rest))
        return result

    def _swap(self, value: object, trail: Trail) -> object:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if isinstance(value, Node):
            return self._copy_node(value, trail) if self._deep else value
        if isinstance(value, (Enum, type, *Unresolved)):
            return self._leaf(value, trail)
        known = self._instances.get(id(value))
        if known is not None:
            return known[1]
        if kind not in self._fields:
            try:
                self._fields[kind] = constructor_fields(kind)
            except UsageError as error:
                raise UsageError(f"{path_of(trail)}: {error.message}", hint=error.hint) from None
        fields = self._fields[kind]
        if fields is None:
            return self._leaf(value, trail)
        from nemorun_core.model.buildable import Config  # which is made of what this module holds

        config = new_node(Config, kind)
        self._instances[id(value)] = (value, config)
        self._pending.append((config, {alias: getattr(value, name) for name, alias in fields}, (), trail))
        return config

    def _copy_node(self, node: Node, trail: Trail) -> Node:
        known = self._nodes.get(id(node))
        if isinstance(known, Node):
            return known
        from nemorun_core.model.arguments import settled

        target = node.__target__
        new_target = self._leaf(target, trail)
        copy = new_node(type(node), new_target, node.__positional__)
        if new_target is target:
            object.__setattr__(copy, "__shape__", node.__shape__)
        self._nodes[id(node)] = copy
        self._pending.append((copy, settled(node), node.__rest__, trail))
        return copy


def post_order(
    roots: Iterable[tuple[Node, Trail]], children: Callable[[Node, Trail], Iterable[tuple[Node, Trail]]]
) -> list[Node]:
    """Order nodes so that each comes after all that it holds, each once.

    Raises:
        UsageError: a node holds itself; with the path on which it does.
    """
    order: list[Node] = []
    done: dict[int, bool] = {}
    stack: list[tuple[Node | None, Iterable[tuple[Node, Trail]]]] = [(None, iter(roots))]
    while stack:
        node, rest = stack[-1]
        for child, trail in rest:
            state = done.get(id(child))
            if state is None:
                done[id(child)] = False
                stack.append((child, iter(children(child, trail))))
                break
            if not state:
                name = readable_name(child.__target__)
                raise UsageError(f"{path_of(trail)} is the {name} that holds it", hint="Use a graph without cycles.")
        else:
            stack.pop()
            if node is not None:
                done[id(node)] = True
                order.append(node)
    return order


def build_arguments(root: Node) -> tuple[list[object], dict[str, object]]:
    """Build all that a node holds, each node once, and return the arguments its target is to be called with.

    Raises:
        UsageError: a required argument is missing, a cycle, or a target is not resolved.
    """
    from nemorun_core.model.arguments import by_position

    copy = Copier(deep=True).copy(root)
    assert isinstance(copy, Node)
    results: dict[int, object] = {}
    trails: dict[int, Trail] = {id(copy): None}

    def children(node: Node, trail: Trail) -> list[tuple[Node, Trail]]:
        found: list[tuple[Node, Trail]] = []
        trails[id(node)] = trail

        def note(value: object, where: Trail) -> object:
            if isinstance(value, Node):
                found.append((value, where))
            elif isinstance(value, Unresolved):
                raise UsageError(f"{path_of(where)} is not imported yet", hint="Call resolve() first.")
            return None

        for name, item in node.__arguments__.items():
            _visit(item, note, (trail, node, name))
        for index, item in enumerate(node.__rest__):
            _visit(item, note, (trail, node, index))
        return found

    def put(value: object, _: Trail) -> object:
        return results[id(value)] if isinstance(value, Node) else value

    for node in post_order([(copy, None)], children):
        if not callable(node.__target__):
            raise UsageError(f"{readable_name(node.__target__)} is not imported yet", hint="Call resolve() first.")
        is_called = node is copy or node.__kind__ == "config"
        positional = by_position(node, node.__arguments__, trails[id(node)], is_called=is_called)
        keywords = {name: transform(item, put, None) for name, item in node.__arguments__.items()}
        arguments = [keywords.pop(name) for name in positional] + [transform(v, put, None) for v in node.__rest__]
        if node is copy:
            return arguments, keywords
        results[id(node)] = node.__build__(node.__target__, arguments, keywords)
    raise AssertionError("the root comes last")  # pragma: no cover - the loop returns at it


def _visit(value: object, note: Callable[[object, Trail], object], trail: Trail) -> None:
    """Show `note` every value within plain containers."""
    kind = type(value)
    if kind not in CONTAINERS:
        note(value, trail)
    elif isinstance(value, dict):
        for key, item in value.items():
            _visit(key, note, (trail, value, key))
            _visit(item, note, (trail, value, key))
    else:
        assert isinstance(value, (list, tuple, set, frozenset))
        for index, item in enumerate(value):
            _visit(item, note, (trail, value, index))
