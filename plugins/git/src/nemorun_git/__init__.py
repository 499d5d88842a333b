"""Packagers: what of a git repository, or of a folder, travels with a job."""

from nemorun_git.archive import GitArchivePackager
from nemorun_git.patterns import HybridPackager, PatternPackager

__all__ = ["GitArchivePackager", "HybridPackager", "PatternPackager"]
