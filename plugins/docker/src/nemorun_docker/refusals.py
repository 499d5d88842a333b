"""What the engine's words mean where it refuses a container: a reason of ours, for good or for now. Pure.

The words are those of Docker 20.10 to 28 (moby, containerd, runc); what is not known is kept as it is.
"""

from __future__ import annotations

import re

from nemorun_core import Deferred, Reason, ReasonKind, Rejected

__all__ = ["refusal"]

_FOR_NOW = re.compile(
    r"non-overlapping IPv4 address pool|all predefined address pools have been fully subnetted"
    r"|no available IPv4 addresses|no space left on device|resource temporarily unavailable|cannot allocate memory"
    r"|too many open files"
)
_FOR_GOOD = (
    (
        ReasonKind.IMAGE,
        r"no such image|exec: \"/bin/sh\"|/bin/sh\": (stat|exec)",
        "it needs an image that is here, and that has /bin/sh",
    ),
    (
        ReasonKind.REJECTED,
        r"could not select device driver|nvidia-container|unknown runtime|libnvidia|unresolvable CDI",
        "no GPU driver: install the NVIDIA Container Toolkit, or leave gpus and runtime out",
    ),
    (
        ReasonKind.REJECTED,
        r"port is already allocated|address already in use",
        "port in use: choose another one in additional_kwargs['ports']",
    ),
    (
        ReasonKind.LIMIT,
        r"Range of CPUs is from|error setting rlimit|Minimum memory limit|ulimit|Requested (CPUs|memory nodes) are not"
        r"|cpuset|memory limit should|--storage-opt",
        "more than this machine gives",
    ),
    (
        ReasonKind.REJECTED,
        r"invalid mount|mount|bind source path|volume|not a directory",
        "bad mount: look at volumes",
    ),
)


def refusal(message: str) -> Rejected | Deferred:
    """Return what a refusal of the engine means for the job."""
    words = message.split("\n")[0].removeprefix("failed to create shim task: ")
    if _FOR_NOW.search(message):
        return Deferred(Reason(ReasonKind.LIMIT, f"the Docker engine: {words}"))
    for kind, pattern, meaning in _FOR_GOOD:
        if re.search(pattern, message, re.IGNORECASE):
            return Rejected(Reason(kind, f"{meaning} (the Docker engine: {words})"))
    return Rejected(Reason(ReasonKind.REJECTED, f"the Docker engine: {words}"))
