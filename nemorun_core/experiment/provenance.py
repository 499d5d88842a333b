"""Facts about who runs an experiment, where and with what; written into its definition. No environment, no secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from nemorun_core.contracts.host import hostname
from nemorun_core.registry import Registry

__all__ = ["collect", "import_path"]


def collect(registry: Registry, experiment: Mapping[str, str]) -> dict[str, object]:
    """Return the core's facts, then those of the hooks under their distributions; a failing hook leaves a warning."""
    from nemorun_core import __version__

    facts: dict[str, object] = {
        "nemorun": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "host": hostname(),
        "user": _user(),
        "argv": list(sys.argv),
        "cwd": experiment["cwd"],
        "plugins": registry.versions(),
    }
    if registry.broken:
        facts["broken_plugins"] = list(registry.broken)
    for hook in registry.hooks("nemorun_provenance"):
        name = hook.found.distribution
        try:
            found = hook.call(experiment=dict(experiment))
            facts[name] = {str(key): str(value) for key, value in dict(found or {}).items()}  # type: ignore[call-overload]
        except Exception as error:  # a plugin's failure costs its own facts only
            facts[name] = {"warning": f"{type(error).__name__}: {error}"}
    return facts


def import_path() -> tuple[str, ...]:
    """Return the folders that this process imports from, absolute, without those of its interpreter."""
    own = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    found = []
    for entry in sys.path:
        path = os.path.abspath(entry)
        real = os.path.realpath(path)
        inside = any(real.startswith((os.path.join(prefix, "lib"), os.path.join(prefix, "bin"))) for prefix in own)
        if not inside and path not in found:
            found.append(path)
    return tuple(found)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
