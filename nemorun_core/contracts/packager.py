"""`Packager`: says which files travel with a job. It only looks; the core names, writes, sends and unpacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import attrs

__all__ = ["Contents", "PackagedFile", "Packager"]


class PackagedFile(NamedTuple):
    """One file or symbolic link of a bundle.

    Attributes:
        name: its path in the bundle, with `/`, relative and without `..`.
        source: the file on this machine that is read, absolute; "" where `content` or `link` says what it is.
        content: its bytes, where no file of this machine holds them.
        link: the target of a symbolic link, as it is written; may not leave the bundle.
        executable: whether it may be executed.
    """

    name: str
    source: str = ""
    content: bytes | None = None
    link: str | None = None
    executable: bool = False


class Contents(NamedTuple):
    """What a bundle will hold.

    Attributes:
        files: in any order, each name once.
        roots: folders of the bundle ("" is its root), each with the folder of this machine that it stands for: what
            the launcher imports from below the one is imported from the other.
        left_out: one line for each thing that somebody may expect in it and that is not; shown, never silent.
    """

    files: Sequence[PackagedFile] = ()
    roots: Sequence[tuple[str, str]] = ()
    left_out: Sequence[str] = ()


@attrs.define(kw_only=True)
class Packager:
    """Base of all packagers, and the empty one: nothing travels. An attrs class whose fields JSON can hold.

    A bundle is named by its content: equal contents are written once, sent once to a host and unpacked once. A job
    runs in its bundle's root.
    """

    contract: ClassVar[int] = 1

    def collect(self, cwd: str) -> Contents:
        """Look at what would travel now. Called when a job is added, and again when the experiment is run.

        Args:
            cwd: the folder that the experiment is launched from, absolute.

        Raises:
            UsageError: what is there cannot be packed as asked, with what to do. Nothing was added then.
        """
        return Contents()
