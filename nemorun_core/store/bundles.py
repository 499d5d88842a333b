"""Bundles: what travels with jobs, named by its content, written once for all experiments and unpacked once in each."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING

from nemorun_core.contracts.packager import PackagedFile
from nemorun_core.errors import StoreError, UsageError
from nemorun_core.store.files import guarded, make_folder, sync_folder

if TYPE_CHECKING:
    import tarfile  # loaded when a bundle is packed or unpacked, as hashlib is: most starts of ours need neither

__all__ = ["bundle_path", "bundle_root", "digest_of", "prune", "unpack", "write_bundle"]

_CHUNK = 1 << 20
_MOMENT = 315532800  # 1980-01-01: contents have no time
_UNUSED_SECONDS = 86400.0


def bundle_path(folder: str, digest: str) -> str:
    """Return where a bundle's tar file stands in an experiment's, or the shared, folder of bundles."""
    return os.path.join(folder, f"{digest}.tar")


def bundle_root(folder: str, digest: str) -> str:
    """Return where a bundle is unpacked in an experiment's folder of bundles."""
    return os.path.join(folder, digest)


def digest_of(files: Iterable[PackagedFile]) -> tuple[str, int]:
    """Read every file, and return the name of the content and its size in bytes.

    Raises:
        UsageError: a file cannot be read, or a name or link would leave the bundle.
    """
    import hashlib

    total = hashlib.sha256()
    size = 0
    for file in sorted(files):
        _check(file)
        if file.link is not None:
            kind, content = "link", hashlib.sha256(os.fsencode(file.link)).hexdigest()
        else:
            content, length = _read(file)
            kind, size = "program" if file.executable else "file", size + length
        total.update(f"{kind} {content} ".encode() + os.fsencode(file.name) + b"\0")
    return total.hexdigest(), size


def write_bundle(files: Iterable[PackagedFile], digest: str, shared: str, own: str) -> None:
    """Have the bundle in the experiment's `own` folder of bundles: linked from the `shared` one, written there if new.

    Raises:
        UsageError: a file changed since its digest was taken.
        StoreError: the disk refused.
    """
    make_folder(shared)
    make_folder(own)
    path = bundle_path(shared, digest)
    with guarded("write", path):
        prune(shared)
        if not os.path.exists(path):
            _write(sorted(files), digest, path)
        with contextlib.suppress(FileExistsError):
            _link(path, bundle_path(own, digest))
        sync_folder(own)


def prune(shared: str) -> None:
    """Remove shared bundles that no experiment has any more."""
    with contextlib.suppress(FileNotFoundError), os.scandir(shared) as entries:
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            if facts.st_nlink == 1 and facts.st_mtime < time.time() - _UNUSED_SECONDS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)


def unpack(folder: str, digest: str) -> None:
    """Unpack a bundle of an experiment, once: whole, or not there. Nothing is written outside its root.

    Raises:
        StoreError: the disk refused, or the bundle is damaged.
    """
    import tarfile

    root = bundle_root(folder, digest)
    if os.path.isdir(root):
        return
    path = bundle_path(folder, digest)
    making = f"{root}.{os.getpid()}.tmp"
    with guarded("unpack", path):
        try:
            os.mkdir(making, 0o700)
            with tarfile.open(path, "r:") as tar:
                _extract(tar, making)
            with contextlib.suppress(FileExistsError):
                os.rename(making, root)
        except (tarfile.TarError, UsageError, EOFError) as error:
            raise StoreError(f"{path} is damaged: {error}.", hint="Run the experiment again.") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _write(files: list[PackagedFile], digest: str, path: str) -> None:
    import tarfile

    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for file in files:
                    _append(tar, file)
            stream.flush()
            os.fsync(stream.fileno())
        if digest_of(files)[0] != digest:
            raise _changed()
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _changed() -> UsageError:
    return UsageError("files changed while they were packed.", hint="Run it again when they are at rest.")


def _append(tar: tarfile.TarFile, file: PackagedFile) -> None:
    import tarfile

    info = tarfile.TarInfo(file.name)
    info.mtime, info.mode = _MOMENT, 0o755 if file.executable else 0o644
    if file.link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, file.link
        tar.addfile(info)
    elif file.content is not None:
        import io

        info.size = len(file.content)
        tar.addfile(info, io.BytesIO(file.content))
    else:
        with _opened(file) as stream:
            info.size = os.fstat(stream.fileno()).st_size
            try:
                tar.addfile(info, stream)
            except OSError as error:
                if error.errno is None:  # tarfile's own: the file ended early
                    raise _changed() from None
                raise


def _read(file: PackagedFile) -> tuple[str, int]:
    import hashlib

    if file.content is not None:
        return hashlib.sha256(file.content).hexdigest(), len(file.content)
    found, size = hashlib.sha256(), 0
    with _readable(file), _opened(file) as stream:
        while data := stream.read(_CHUNK):
            found.update(data)
            size += len(data)
    return found.hexdigest(), size


def _opened(file: PackagedFile) -> IO[bytes]:
    with _readable(file):
        return open(file.source, "rb", buffering=0)


@contextlib.contextmanager
def _readable(file: PackagedFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{file.source} cannot be packed: {error.strerror}.", hint="Leave it out, or make it readable."
        ) from None


def _check(file: PackagedFile) -> None:
    """Refuse names and links that would leave the bundle."""
    if not _is_inside(file.name) or os.path.normpath(file.name) != file.name:
        raise UsageError(f"{file.name!r} cannot be a name in a bundle.", hint="Leave it out.")
    if file.link is not None and not _is_inside(os.path.join(os.path.dirname(file.name), file.link)):
        raise UsageError(f"the link {file.name!r} leaves the bundle: it points to {file.link!r}.", hint="Leave it out.")


def _is_inside(name: str) -> bool:
    outside = not name or "\0" in name or os.path.isabs(name)
    return not outside and os.path.normpath(name).split("/")[0] != ".."


def _extract(tar: tarfile.TarFile, root: str) -> None:
    """Write files first and links last, so that nothing is written through a link."""
    links: list[tarfile.TarInfo] = []
    made: set[str] = {root}
    for info in tar:
        _check(PackagedFile(info.name, link=info.linkname if info.issym() else None))
        place = os.path.join(root, info.name)
        if (parent := os.path.dirname(place)) not in made:
            os.makedirs(parent, mode=0o700, exist_ok=True)
            made.add(parent)
        if info.issym():
            links.append(info)
            continue
        source = tar.extractfile(info) if info.isreg() else None
        if source is None:
            raise UsageError(f"{info.name!r} is no file")
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if info.mode & 0o100 else 0o600)
        with open(handle, "wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
    for info in links:
        os.symlink(info.linkname, os.path.join(root, info.name))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except PermissionError:  # a file system without hard links
        shutil.copyfile(source, target)
