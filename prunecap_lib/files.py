"""How is something written so that nothing of the user's is lost, no half of it is left, and processes do not mix?

What lies in the way is replaced only where it is our own, known by what it holds; a command asks that, and whether the
place can be written at all, before it works (``check_output_file``, ``check_output_folder``). New things grow in a
hidden sibling; only when they are complete do renames put them in place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError

from .errors import CheckpointError, InputError, printable

_LEAST = 1 << 20  # bytes that must be free where anything is to be written
_PARTIAL, _PREVIOUS, _LOCK = "partial", "previous", "prunecap.lock"  # hidden siblings; the last name is the longest
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def shipped_checkpoints() -> Path:
    """Where the shipped checkpoints lie: inside an installed library, else in the project's ``data/``."""
    package = Path(__file__).resolve().parent
    inside = package / "checkpoints"
    return inside if inside.is_dir() else package.parent / "data" / "checkpoints"


def data_folder() -> Path:
    """Where data is kept: PRUNECAP_DATA, else the project's ``data/``, and for a library installed away from it the
    user's cache (on Linux ~/.cache/prunecap)."""
    if named := os.environ.get("PRUNECAP_DATA"):
        return Path(named)
    data = shipped_checkpoints().parent
    return data if data.name == "data" else user_cache_path("prunecap", appauthor=False)


@dataclass(frozen=True)
class Kind:
    """Something that the library writes, and how it is known again.

    Attributes:
        what: its name in messages.
        ours: is the file, or the folder that is not empty, such a thing? Whatever it raises means no.
        names: pattern of the names of a folder's own files. Whatever else lies there is the user's, and stays.
    """

    what: str
    ours: Callable[[Path], bool]
    names: str = ""

    def owns(self, path: Path) -> bool:
        try:
            return bool(self.ours(path))
        except Exception:  # unreadable, of another format, or made to be hard to read
            return False

    def named(self, path: Path) -> bool:
        return re.fullmatch(self.names, path.name) is not None


def check_output_file(path: str | Path, kind: Kind) -> Path:
    """The path, links followed, where a file may be written without loss.

    Raises InputError where it cannot be written, where its disk is full, and where something else than ``kind`` lies.
    """
    path = _place(path)
    if os.path.lexists(path):
        if not path.is_file():
            raise InputError(f"{printable(path)} is no regular file, and a {kind.what} is to be written; name "
                             "another place")
        if not kind.owns(path):
            raise InputError(f"file {printable(path)} exists and is no {kind.what}, so it is left as it is; name "
                             "another file, or move it away")
        with _refused(path), path.open("ab"):
            pass
    _check_writable(path.parent, path, path.name)
    return path


def check_output_folder(folder: str | Path, kind: Kind, *, swapped: bool = False) -> Path:
    """The folder, links followed, where one may be written without loss: it is new, empty, or ``kind`` already.

    Args: swapped: a new folder will take the place of the whole, as ``replace_folder`` does.

    Raises InputError otherwise, and where it cannot be written or its disk is full.
    """
    folder = _place(folder)
    _check_ours(folder, kind)
    if os.path.lexists(folder):
        _check_writable(folder, folder)
    if swapped or not os.path.lexists(folder):
        _check_writable(folder.parent, folder, _hidden(folder, _LOCK).name)
    if swapped:
        if folder in (here := Path(os.getcwd()), *here.parents) or os.path.ismount(folder):
            raise InputError(f"folder {printable(folder)} cannot be replaced while it is the working folder or a "
                             f"disk's own; name a folder in it for the {kind.what}")
        for hidden in (_hidden(folder, _PARTIAL), _hidden(folder, _PREVIOUS)):
            if os.path.lexists(hidden) and not _is_left_over(hidden, kind):
                raise InputError(f"{printable(hidden)} is in the way and is not prunecap's; move it away, or name "
                                 f"another folder for the {kind.what}")
    return folder


@contextmanager
def replace_file(path: str | Path, kind: Kind | None = None) -> Iterator[Path]:
    """Write a file as a whole: ``with replace_file(path, kind) as new: ...`` writes ``new``, then renames it.

    Its folder is made too. Without ``kind`` the file is one of a folder that is our own. Raises CheckpointError where
    the file system refuses, and what ``check_output_file`` raises.
    """
    path = Path(path) if kind is None else check_output_file(path, kind)
    new = path.with_name(f".{secrets.token_hex(4)}.partial{path.suffix[:9]}")  # a name that nobody has
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield new
        _sync(new)  # or a power cut could leave the new name with nothing in it
        new.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own way
        raise CheckpointError(f"could not write {path}: {getattr(error, 'strerror', None) or error}; free some space "
                              "or choose another place") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, kind: Kind | None = None) -> None:
    """Write a small file as a whole, its folder too; see ``replace_file``. Half a character is written as JSON does."""
    with replace_file(path, kind) as new:
        new.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def replace_folder(folder: str | Path, kind: Kind) -> Iterator[Path]:
    """Write a folder as a whole: ``with replace_folder(out, kind) as new: ...`` fills ``new``, then swaps it in.

    Whatever goes wrong before the swap, the old folder stays as it was; files beside those of ``kind`` go over into
    the new one. Raises CheckpointError where the file system refuses (disk full, no permission), and what
    ``check_output_folder`` raises.
    """
    folder = check_output_folder(folder, kind, swapped=True)
    new = _hidden(folder, _PARTIAL)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(_hidden(folder, _LOCK), say):
            delete_folder(new, kind)
            try:
                new.mkdir()
                yield new
                for path in [*new.iterdir(), new]:
                    _sync(path)
                _recover(folder, kind)
                _check_ours(folder, kind)  # it may have come meanwhile
                if folder.exists():
                    folder.rename(_hidden(folder, _PREVIOUS))
                new.rename(folder)
            except BaseException:
                with suppress(OSError):
                    delete_folder(new, kind)
                raise
            finally:
                _recover(folder, kind)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"could not write {folder}: {getattr(error, 'strerror', None) or error}; what was there "
                              "before is kept. Free some space or choose another folder, then run the same "
                              "command") from error


def recover_folder(folder: str | Path, kind: Kind) -> None:
    """Bring the previous folder back where a crash fell between two renames; waits while another process swaps.

    Raises OSError where the file system refuses.
    """
    folder = Path(os.path.realpath(folder))
    if not os.path.lexists(folder) and kind.owns(_hidden(folder, _PREVIOUS)):
        with locked(_hidden(folder, _LOCK), say):
            _recover(folder, kind)


def _recover(folder: Path, kind: Kind) -> None:
    """The previous folder comes back; or beside its successor goes, and leaves there what is not ours."""
    previous = _hidden(folder, _PREVIOUS)
    if not _is_left_over(previous, kind):
        return
    if not os.path.lexists(folder) and kind.owns(previous):
        previous.rename(folder)
        return
    with suppress(OSError):  # what cannot go now, may go next time
        for path in previous.iterdir():
            if kind.named(path):
                path.unlink()
            elif not os.path.lexists(folder / path.name):
                path.rename(folder / path.name)
        previous.rmdir()


def delete_folder(folder: Path, kind: Kind) -> None:
    """Delete the files of ``kind`` in a folder, and the folder too where nothing else lies in it. Raises OSError."""
    if os.path.lexists(folder):
        for path in folder.iterdir():
            if kind.named(path):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def locked(path: str | Path, say: Callable[[str], None]) -> Iterator[None]:
    """Alone with what the lock file stands for: waits, and says so, while another process holds it.

    The lock ends with the process, however it ends. Where the file system keeps no locks, that is said. Raises OSError
    where the lock file cannot be written.
    """
    lock, taken = _try_lock(path, say)
    if not taken:
        say(f"another process is at work here ({path}); waiting until it has finished")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # where a file that is open cannot go, it stays
            if not os.path.getsize(path):
                os.unlink(path)  # who waits for it finds out, and makes another
        lock.release()


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """As ``locked``, but who comes second is refused: raises InputError that names the process which holds the lock.

    The lock file stays, and marks its folder as ours; a folder that was made for it alone goes.
    """
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lock, taken = _try_lock(path, say)
    if not taken:
        raise InputError(f"{what}: another process is at work there{printable(holder[:100])}; wait until it has "
                         "finished, or choose another folder")
    try:
        with suppress(OSError):
            path.write_text(f" (process {os.getpid()} on {socket.gethostname()})", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            if made and os.listdir(path.parent) == [path.name]:
                path.unlink()
                path.parent.rmdir()
        lock.release()


def _try_lock(path: str | Path, say: Callable[[str], None]) -> tuple[FileLock, bool]:
    """A lock, and whether it was free; where the file system keeps none, that is said, and it counts as free."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return lock, False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(f"no lock on {path} ({error.strerror}): see to it that no other process does the same here")
    return lock, True


def check_space(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Raises InputError where fewer bytes than ``needed`` are free in the folder, and 2% that any disk should keep."""
    free = shutil.disk_usage(folder).free
    if needed > 0.98 * free:
        raise InputError(f"{what} take about {in_bytes(needed)}, but {in_bytes(free)} are free there; {remedy}")


def in_bytes(count: float) -> str:
    """A number of bytes for people: "3.4 GB", "12 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def say(message: str) -> None:
    """A line for people, past a progress bar."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def file_sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _hidden(folder: Path, suffix: str) -> Path:
    """A folder's sibling that `ls` does not show."""
    return folder.parent / f".{folder.name}.{suffix}"


def _is_left_over(hidden: Path, kind: Kind) -> bool:
    """Is a hidden sibling what a crash left, and no folder of the user's that merely has its name?"""
    try:
        return hidden.is_dir() and not hidden.is_symlink() and (
            kind.owns(hidden) or all(map(kind.named, hidden.iterdir())))
    except OSError:
        return False


def _place(path: str | Path) -> Path:
    if re.search("[\x00-\x1f\x7f]", str(path)):
        raise InputError(f"{printable(path)} has a control character in its name; choose another")
    given = Path(os.path.abspath(path))
    there = next(place for place in (given, *given.parents) if os.path.lexists(place))
    if not os.path.exists(there):
        raise InputError(f"{printable(there)} is a link that leads nowhere, so that {printable(given)} cannot be "
                         "written; name another place")
    return Path(os.path.realpath(path))


def _check_ours(folder: Path, kind: Kind) -> None:
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise InputError(f"{printable(folder)} is no folder, and one is to be written for a {kind.what}; name another")
    with _refused(folder):
        empty = not os.listdir(folder)
    if not empty and not kind.owns(folder):
        raise InputError(f"folder {printable(folder)} holds other things than a {kind.what}, so it is left as it is; "
                         "name a new folder")


def _check_writable(folder: Path, path: Path, name: str = "") -> None:
    """Raises InputError where a file of this name cannot come into a folder that is there, or has to be made first."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise InputError(f"{printable(path)} cannot be written: {printable(there)} is no folder; name another place")
    with _refused(path):
        for made in (*(there / part for part in (*folder.relative_to(there).parts, name)), folder / name):
            with suppress(FileNotFoundError):
                os.lstat(made)  # is a name too long, or all of them together?
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(_LEAST))


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be written ({error.strerror or error}); make room or see to the "
                         "permissions, or name another place") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
