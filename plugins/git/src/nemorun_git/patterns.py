"""`PatternPackager` and `HybridPackager`: files by pattern, and several packagers in one bundle."""

from __future__ import annotations

import os

import attrs

from nemorun_core import Contents, PackagedFile, Packager, UsageError
from nemorun_git.files import excluded, leaves, leaving, lying, matching

__all__ = ["HybridPackager", "PatternPackager"]


@attrs.define(kw_only=True)
class PatternPackager(Packager):
    """Packs the files below a folder that match a pattern.

    Attributes:
        include_pattern: a pattern or a list of them, `**` for any depth, relative to `relative_path` or absolute; of a
            folder that matches, all that it holds, without `.git` and `__pycache__`.
        relative_path: the folder that becomes the bundle's root, relative to the one that is launched from.
        exclude: patterns of files that stay here.
    """

    include_pattern: str | list[str]
    relative_path: str = "."
    exclude: list[str] = attrs.field(factory=list)

    def collect(self, cwd: str) -> Contents:
        """Look for the files. Raises UsageError where a pattern matches none, or leaves the folder."""
        base = os.path.abspath(os.path.join(cwd, self.relative_path))
        given = self.include_pattern
        files: dict[str, PackagedFile] = {}
        left: list[str] = []
        by_pattern = 0
        for pattern in [given] if isinstance(given, str) else given:
            below = os.path.relpath(pattern, base) if os.path.isabs(pattern) else pattern
            names = [] if leaves(below) or not below else matching(base, below)
            if not names:
                raise UsageError(
                    f"PatternPackager: {pattern!r} matches no file below {base}.",
                    hint="Write it relative to relative_path, as 'src/**/*.py'.",
                )
            for name in names:
                file = lying(os.path.join(base, name), name)
                if excluded(name, self.exclude):
                    by_pattern += 1
                elif file and (line := leaving(file)):
                    left.append(line)
                elif file:
                    files[name] = file
        if by_pattern:
            left.append(f"{by_pattern} files by exclude")
        return Contents(list(files.values()), [("", base)], left)


@attrs.define(kw_only=True)
class HybridPackager(Packager):
    """Packs what several packagers collect into one bundle.

    Attributes:
        sub_packagers: by name, which is the folder of the bundle that each one's files come to.
        extract_at_root: put them all at the bundle's root instead; no two may bring the same name.
    """

    sub_packagers: dict[str, Packager]
    extract_at_root: bool = False

    def collect(self, cwd: str) -> Contents:
        """Ask each. Raises UsageError where two bring the same file."""
        files: dict[str, PackagedFile] = {}
        owners: dict[str, str] = {}
        roots: list[tuple[str, str]] = []
        left: list[str] = []
        for owner, packager in self.sub_packagers.items():
            place = "" if self.extract_at_root else owner
            if leaves(owner) or not owner:
                raise UsageError(f"HybridPackager: {owner!r} is no name of a folder.", hint="Use a plain name.")
            contents = packager.collect(cwd)
            for file in contents.files:
                name = os.path.join(place, file.name)
                if name in files:
                    raise UsageError(
                        f"HybridPackager: {owners[name]!r} and {owner!r} both bring {name!r}.",
                        hint="Leave it out of one of them, or use extract_at_root=False.",
                    )
                files[name], owners[name] = file._replace(name=name), owner
            roots += [(os.path.normpath(os.path.join(place, inner)).strip("."), base) for inner, base in contents.roots]
            left += [f"{owner}: {line}" for line in contents.left_out]
        return Contents(list(files.values()), roots, left)
