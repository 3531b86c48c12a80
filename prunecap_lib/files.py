"""How is a folder written so that a crash never leaves half of it behind, and two processes do not mix?

Everything goes into a hidden sibling first; only when it is complete do two renames put it in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import CheckpointError


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Write a folder as a whole: ``with replace_folder(out) as new: ...`` fills ``new``, then swaps it in.

    Whatever goes wrong before the swap, the old folder stays as it was. Raises CheckpointError where the
    file system refuses (disk full, no permission).
    """
    folder = Path(folder)
    new = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        for path in [*new.iterdir(), new]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        recover_folder(folder)
        if folder.exists():
            shutil.rmtree(_previous(folder), ignore_errors=True)
            folder.rename(_previous(folder))
        new.rename(folder)
        shutil.rmtree(_previous(folder), ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own way
        shutil.rmtree(new, ignore_errors=True)
        recover_folder(folder)
        raise CheckpointError(f"could not write {folder}: {getattr(error, 'strerror', None) or error}; what was there "
                              "before is kept. Free some space or choose another folder, then run the same "
                              "command") from error
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def recover_folder(folder: str | Path) -> None:
    """Bring the previous folder back where a crash fell between the two renames."""
    folder = Path(folder)
    if not os.path.exists(folder) and os.path.exists(_previous(folder)):  # False for a name that cannot be
        _previous(folder).rename(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write a small file as a whole, its folder too. Raises CheckpointError where the file system refuses."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(f"could not write {path}: {error.strerror or error}; free some space or choose "
                              "another place") from error


@contextmanager
def locked(path: str | Path, say: Callable[[str], None]) -> Iterator[None]:
    """Alone with what the lock file stands for: waits, and says so, while another process holds it.

    The lock ends with the process, however it ends. Where the file system keeps no locks, that is said. Raises OSError
    where the lock file cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with Path(path).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is at work here ({path}); waiting until it has finished")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            say(f"no lock on {path} ({error.strerror}): see to it that no other process does the same here")
        try:
            yield
        finally:
            with suppress(OSError):
                # Closing is not enough: a process that was forked meanwhile has the file open, too.
                fcntl.flock(file, fcntl.LOCK_UN)


def file_sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
