"""Atomic writes: files and folders are written beside the target, synced, and renamed over it."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of a disk that is full, broken or write-protected.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES,
           errno.EPERM, errno.EINTR)  # fmt: skip
NEW_FILE = os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # never an existing file or link


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically: at every moment `path` holds the old content or all of the new."""
    with replacing(path) as handle:
        _write(handle, content)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[int]:
    """Open a file descriptor whose content replaces `path` once the block ends without an error.

    For content that is made piece by piece; no reader ever sees a part of it.
    """
    target = Path(path)
    require_place(target)
    with _names_target(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name is stored before the file is made: an interrupt in between could otherwise leave
        # a file that is never removed.
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            handle = os.open(temporary, os.O_RDWR | NEW_FILE, 0o666)
            try:
                yield handle
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):  # the caller must see the first error
                temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)


def require_place(path: str | os.PathLike[str]) -> None:
    """Check that a file can have this path: it is no folder, and no file stands for its folder.

    Raises:
        OSError: it cannot.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"expected the name of a file to write, got the folder {target}; name a file in it"
        )
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise NotADirectoryError(
                f"expected a folder to write {target.name} in, got the file {parent}; give another"
            )


def commit_folder(target: Path, files: Mapping[str, bytes], *, beside: Path) -> bool:
    """Create the folder `target` with these files atomically, by renaming a finished folder.

    Args:
        target: the folder; its parent exists.
        files: content by name.
        beside: a folder on the same file system that holds unfinished work.

    Returns:
        Whether this call created it; a folder that another process made first is kept as it is.
    """
    temporary = beside / f"{target.name}.{secrets.token_hex(8)}"
    with _names_target(target):
        os.mkdir(temporary)
        try:
            for name, content in files.items():
                _write_file(temporary / name, content)
            _sync_directory(temporary)
            os.rename(temporary, target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            # The target has files in it: another process was faster.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and target.is_dir():
                return False
            raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_directory(target.parent)
    return True


@contextmanager
def _names_target(target: Path) -> Iterator[None]:
    """Name the target in disk errors, which know only file descriptors and temporary names.

    An error about another file, which the caller reads in the block, keeps its own name.
    """
    try:
        yield
    except OSError as error:
        of_target = error.filename is None or target.name in str(error.filename)
        if error.errno in DISK_ERRORS and of_target:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def _write(handle: int, content: bytes) -> None:
    """Write all of `content`, in as many calls as the system needs."""
    unwritten = memoryview(content)
    while unwritten:
        unwritten = unwritten[os.write(handle, unwritten) :]


def _write_file(path: Path, content: bytes) -> None:
    """Write a new file and sync it."""
    handle = os.open(path, os.O_WRONLY | NEW_FILE, 0o666)
    try:
        _write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    """Sync the entries of a directory, where the system allows one to be opened."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows does not open directories
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
