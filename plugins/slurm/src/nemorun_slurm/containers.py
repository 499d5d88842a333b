"""Containers: the options of srun that pyxis reads, or the command line of Apptainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemorun_core import UsageError

if TYPE_CHECKING:
    from nemorun_slurm.executor import SlurmExecutor

__all__ = ["apptainer", "check_containers", "exported", "pyxis"]

_RUNTIMES = ("apptainer", "pyxis")


def pyxis(executor: SlurmExecutor, folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the options by which srun runs a member's ranks in its container, none where it has none.

    pyxis (0.11 and later) sets the environment after the image's own, but for the names that it is given.

    Args:
        folders: what has to be seen inside under the same path.
        names: the variables that must arrive as they are.

    Raises:
        UsageError: a folder that cannot be mounted, because of its name.
    """
    if executor.container_image is None or executor.container_runtime != "pyxis":
        return []
    mounts = [*executor.container_mounts, *(f"{folder}:{folder}" for folder in _mountable(folders))]
    options = [f"--container-image={executor.container_image}", f"--container-mounts={','.join(mounts)}"]
    wanted = sorted({*executor.container_env, *names})
    return [*options, f"--container-env={','.join(wanted)}"] if wanted else options


def apptainer(executor: SlurmExecutor, folders: Sequence[str], cwd: str, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs a program in its Apptainer container (1.0 and later), else the program's own.

    Raises:
        UsageError: a folder that cannot be mounted, because of its name.
    """
    if executor.container_image is None or executor.container_runtime != "apptainer":
        return list(argv)
    binds = [*executor.container_mounts, *(f"{folder}:{folder}" for folder in _mountable(folders))]
    options = [word for bind in binds for word in ("--bind", bind)]
    return ["apptainer", "exec", *options, "--pwd", cwd, executor.container_image, *argv]


def exported(executor: SlurmExecutor, names: Sequence[str]) -> list[str]:
    """Return the variables that Apptainer is to set inside over the image's own, from outside."""
    if executor.container_image is None or executor.container_runtime != "apptainer":
        return []
    return sorted({*executor.container_env, *names})


def check_containers(executor: SlurmExecutor) -> None:
    """Refuse what no container can be made of. Raises UsageError."""
    if executor.container_runtime not in _RUNTIMES:
        raise UsageError(
            f"SlurmExecutor(container_runtime={executor.container_runtime!r}): expected 'pyxis' or 'apptainer'."
        )
    if executor.container_image is None:
        for field in ("container_mounts", "container_env"):
            if getattr(executor, field):
                raise UsageError(f"SlurmExecutor({field}) without a container_image.", hint="Name the image.")
        return
    if not executor.container_image or "\0" in executor.container_image:
        raise UsageError(f"SlurmExecutor(container_image={executor.container_image!r}): expected the name of an image.")
    for mount in executor.container_mounts:
        if not isinstance(mount, str) or "," in mount or "\0" in mount or not mount.partition(":")[0]:
            raise UsageError(
                f"SlurmExecutor(container_mounts): {mount!r} is no mount.",
                hint="Write '/from:/to', one for each entry.",
            )
    for name in executor.container_env:
        if not isinstance(name, str) or not (name.isascii() and name.isidentifier()):
            raise UsageError(f"SlurmExecutor(container_env): {name!r} is no name of an environment variable.")


def _mountable(folders: Sequence[str]) -> list[str]:
    """Return the folders once each, without those that lie in another."""
    found: list[str] = []
    for folder in sorted(set(folders)):
        if "," in folder or ":" in folder:
            raise UsageError(
                f"the folder {folder} cannot be mounted in a container: it has ',' or ':' in its name.",
                hint="Launch from a folder without them.",
            )
        if not any(folder.startswith(f"{outer.rstrip('/')}/") for outer in found):
            found.append(folder)
    return found
