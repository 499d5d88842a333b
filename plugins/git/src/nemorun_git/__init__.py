"""Packagers: what of a git repository, or of a folder, travels with a job. Each is imported when it is first used."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemorun_git.archive import GitArchivePackager
    from nemorun_git.patterns import HybridPackager, PatternPackager

__all__ = ["GitArchivePackager", "HybridPackager", "PatternPackager"]


def __getattr__(name: str) -> object:
    # The hooks of this package are imported on each start; its packagers only where one is used.
    if name == "GitArchivePackager":
        from nemorun_git.archive import GitArchivePackager

        return GitArchivePackager
    if name in __all__:
        from nemorun_git import patterns

        return vars(patterns)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
