"""Runs one Partial from its JSON file: `python runner.py call.0.json`. Travels with jobs as this one file.

Standard library and Python 3.8 syntax only; nothing else of nemorun is needed where it runs. The file is a record as in
`nemorun_core.model.values`, with the import path and the folder of pickles added.

Exit code 1: the function raised, or could not be imported. 2: it was pickled by another version of Python.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import os
import pathlib
import pickle
import sys
import types
from typing import Any

PAYLOAD = "NEMORUN_CALL"  # tells the processes that multiprocessing spawns which file this one was started on


def read(path: str) -> dict[str, Any]:
    """Read the file, and make importable here what was importable for whoever launched it."""
    with open(path, encoding="utf-8") as stream:
        payload: dict[str, Any] = json.load(stream)
    if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    wanted = payload["sys_path"]
    missing = [entry for entry in wanted if entry not in sys.path]
    common = next((place for place, entry in enumerate(wanted) if entry in sys.path), 1)
    first = [entry for entry in wanted[:common] if entry in missing]
    sys.path[:0] = first
    sys.path += [entry for entry in missing if entry not in first]
    bundle = payload.get("bundle", [])
    sys.path[:] = bundle + [entry for entry in sys.path if entry not in bundle]
    if payload["support"] and payload["support"] not in sys.path:
        sys.path.append(payload["support"])  # last: what is installed here is preferred
    for python in payload.get("pickles", {}).values():
        if tuple(python) != sys.version_info[:2]:
            sys.stderr.write(
                f"nemorun: {payload['name']} was sent by value from Python {python[0]}.{python[1]}, and "
                f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}.\n"
                "  Use the same version, or move the function into a module that is installed.\n"
            )
            sys.exit(2)
    return payload


class Builder:
    """Makes values of the file's JSON: each node once, each pickle once."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload
        self.pickles: dict[str, list[Any]] = {}
        self.nodes: list[Any] = []

    def call(self) -> None:
        """Build all nodes in their order, and call the last one, which is the task."""
        last = len(self.payload["nodes"]) - 1
        for number, entry in enumerate(self.payload["nodes"]):
            target = self.target(entry["target"])
            keywords = {name: self.value(item) for name, item in entry["kwargs"].items()}
            arguments = [keywords.pop(name) for name in entry.get("positional", [])]
            arguments += [self.value(item) for item in entry.get("args", [])]
            if entry["kind"] == "partial" and number != last:
                self.nodes.append(functools.partial(target, *arguments, **keywords))
            else:
                self.nodes.append(target(*arguments, **keywords))

    def value(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.value(item) for item in data]
        if not isinstance(data, dict):
            return data
        tag = data.get("$")
        if tag is None:
            return {key: self.value(item) for key, item in data.items()}
        if tag == "node":
            return self.nodes[data["id"]]
        if tag in ("tuple", "set", "frozenset"):
            return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](map(self.value, data["items"]))
        if tag == "dict":
            return {self.value(key): self.value(item) for key, item in data["items"]}
        if tag == "float":
            return float(data["value"])
        if tag == "complex":
            return complex(self.value(data["real"]), self.value(data["imag"]))
        if tag == "bytes":
            return base64.b64decode(data["base64"])
        if tag == "str":
            return base64.b64decode(data["base64"]).decode("utf-8", "surrogatepass")
        if tag == "path":
            return getattr(pathlib, data["type"])(self.value(data["path"]))
        if tag == "enum":
            cls = self.target(data["class"])
            return cls[data["member"]] if isinstance(data["member"], str) else cls(data["member"])
        if tag == "object":
            return self.target(data)
        raise ValueError(f"unknown tag {tag!r}: the file is of a newer nemorun")

    def target(self, data: dict[str, Any]) -> Any:
        if "pickle" in data:
            return self.load(data["pickle"])[data["item"]]
        module, _, qualname = data["ref"].partition(":")
        try:
            found = importlib.import_module(module)
            for part in qualname.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            trim(error)
            raise ImportError(
                f"{data['ref']} cannot be imported by {sys.executable}: {error}\n"
                f"  Install the package that holds {module}, or add its folder to PYTHONPATH. Looked in:\n    "
                + "\n    ".join(sys.path)
            ) from error
        return found

    def load(self, digest: str) -> list[Any]:
        if digest not in self.pickles:
            with open(os.path.join(self.payload["objects"], digest), "rb") as stream:
                self.pickles[digest] = pickle.load(stream)
        return self.pickles[digest]

    def script_names(self) -> dict[str, Any]:
        """Collect what the launching script defined and the pickles hold, by the names it has in that script."""
        names: dict[str, Any] = {}
        for digest in self.payload.get("pickles", {}):
            for item in self.load(digest):
                for found in [item, *vars(item).values()]:
                    used = getattr(found, "__globals__", {})
                    names.update((name, value) for name, value in used.items() if not name.startswith("__"))
                if getattr(item, "__module__", None) == "__main__":
                    names[item.__name__] = item
        return names


def trim(error: BaseException) -> None:
    """Let the error's traceback begin where the user's code does."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith((__file__, importlib.__file__, "<frozen importlib")):
        trace = trace.tb_next
    error.__traceback__ = trace


def main(path: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # logs are followed while it runs
    payload = read(path)
    os.environ[PAYLOAD] = os.path.abspath(path)
    sys.argv = [payload["name"]]
    try:
        builder = Builder(payload)
        # What the script defined must be found in `__main__`, where pickle and multiprocessing look for it.
        script = types.ModuleType("__main__")
        script.__file__ = os.path.abspath(__file__)
        sys.modules["__main__"] = script
        vars(script).update(builder.script_names())
        builder.call()
    except Exception as error:
        trim(error)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
elif __name__ == "__mp_main__" and PAYLOAD in os.environ:
    globals().update(Builder(read(os.environ[PAYLOAD])).script_names())
