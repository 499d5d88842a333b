"""Quoting: any text for the shell, and for a line that sbatch reads."""

from __future__ import annotations

import re
import shlex

from nemorun_core import UsageError

__all__ = ["comment", "directive", "filename", "shell"]

_PLAIN = re.compile(r"[A-Za-z0-9_.,:/@%+=*\[\]-]+")
# sbatch takes any #SBATCH line with one of these words in it, in whatever case, for the start of another component.
_SEPARATORS = re.compile(r"(hetjo|packjo)(?=b)", re.IGNORECASE)
_ONE_LINE = {number: repr(chr(number))[1:-1] for number in (*range(32), 127, 0x85, 0x2028, 0x2029)}


def shell(*words: str) -> str:
    """Return words as a POSIX shell must read them, to arrive exactly.

    Raises:
        UsageError: a NUL character, which no shell can hold.
    """
    for word in words:
        if "\0" in word:
            raise UsageError(f"a NUL character in {word!r}, which no program can be passed.", hint="Take it out.")
    return " ".join(map(shlex.quote, words))


def directive(flag: str, value: str | None = None) -> str:
    """Return one `#SBATCH` line, read by sbatch as exactly this flag and value; None: a flag without a value.

    sbatch has its own reader (`get_argument` of Slurm's src/common/slurm_opt.c, 22.05 to 26.05): blanks part words, `#`
    begins a comment, quotes of both kinds group, and a backslash takes the next character as it is, within either.

    Raises:
        UsageError: a line feed or other control character but the tab, for which a line has no place.
    """
    if value is None:
        return f"#SBATCH {flag}"
    if any(ord(character) < 32 and character != "\t" for character in value):
        raise UsageError(f"{flag}: {value!r} holds a control character.", hint="Write it on one line.")
    if _PLAIN.fullmatch(value) and not _SEPARATORS.search(value):
        return f"#SBATCH {flag}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH {flag}="{_SEPARATORS.sub(_broken, escaped)}"'


def filename(path: str) -> str:
    """Return a path as a filename pattern that stands for it alone (sbatch(1), "filename pattern").

    A backslash in it, which is doubled, keeps all symbols from being replaced.
    """
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")


def comment(text: str) -> str:
    """Return any text as one comment line of a script: control characters stand as Python writes them."""
    return f"# {text.translate(_ONE_LINE)}"


def _broken(match: re.Match[str]) -> str:
    return f"{match[1]}\\"
