"""Keys, and the short safe names made of them: how a job is found again on any scheduler and on disk."""

import base64
import string
from typing import NamedTuple

try:  # what `hashlib` would give, without the milliseconds that loading OpenSSL takes
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from hashlib import sha256

__all__ = ["DNS_ALPHABET", "NAME_ALPHABET", "Key", "folder_name", "slug"]

NAME_ALPHABET = string.ascii_letters + string.digits + "._-"
"""What Docker and Slurm take in names."""
DNS_ALPHABET = string.ascii_lowercase + string.digits + "-"
"""What Kubernetes takes in names (RFC 1123 labels)."""

_DIGEST_CHARACTERS = 13
_PLAIN = frozenset(NAME_ALPHABET + " ")


def slug(text: str, limit: int = 63, alphabet: str = NAME_ALPHABET, *, readable: str | None = None) -> str:
    """Return a name of at most `limit` characters out of `alphabet`, the same for the same `text` everywhere.

    A readable ASCII part of `readable` (of `text` where that is None), `-`, then 13 base32 characters of the SHA-256
    of the whole `text`. It begins with a letter or digit.
    """
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    suffix = base64.b32encode(digest).decode().lower()[:_DIGEST_CHARACTERS]
    head = text if readable is None else readable
    if not set(alphabet) & set(string.ascii_uppercase):
        head = head.lower()
    filler = "_" if "_" in alphabet else "-"
    head = "".join(character if character in alphabet else filler for character in head)
    head = head.lstrip("._-")[: limit - _DIGEST_CHARACTERS - 1].rstrip("._-")
    return f"{head}-{suffix}" if head else f"x-{suffix}"


def folder_name(name: str, limit: int, *, reserved: frozenset[str] = frozenset()) -> str:
    """Return the folder for a title or job name: the name itself where that is safe on any file system, else a slug."""
    plain = 0 < len(name) <= limit and name[0] not in ". -" and name[-1] not in ". " and _PLAIN.issuperset(name)
    if plain and name not in reserved:
        return name
    return slug(name, limit)


class Key(NamedTuple):
    """The name of one attempt of one job, unique in the world. Attempts count from 0."""

    nonce: str
    job: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.nonce}/{self.job}/{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> "Key":
        """Read back what `str(key)` wrote. Raises ValueError for anything else."""
        nonce, _, rest = text.partition("/")
        job, _, attempt = rest.rpartition("/")
        if not (nonce and job and attempt.isdigit()):
            raise ValueError(f"expected <nonce>/<job>/<attempt>, found {text!r}")
        return cls(nonce, job, int(attempt))

    def slug(self, limit: int = 63, alphabet: str = NAME_ALPHABET) -> str:
        """Return the scheduler's name for this attempt; readable part: the job."""
        return slug(str(self), limit, alphabet, readable=self.job)
