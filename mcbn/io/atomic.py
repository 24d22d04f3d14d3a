"""Files and folders that are whole or not there: written beside the target, synced, renamed."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# What a disk says that is full, broken or not to be written to.
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES,
           errno.EPERM, errno.EINTR)  # fmt: skip
NEW = os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # never a file or a link that is there


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it: beside the target, synced, renamed."""
    with replacing(path) as handle:
        _write(handle, content)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[int]:
    """A handle to write to: what is written takes the place of `path` when the block ends well.

    For content that is made piece by piece; nobody ever sees a part of it.
    """
    target = Path(path)
    with _named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Named before it is made: an interrupt right after would leave a file that nobody knows.
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            handle = os.open(temporary, os.O_RDWR | NEW, 0o666)
            try:
                yield handle
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):  # what went wrong first is what the caller must hear
                temporary.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)


def commit_folder(target: Path, files: Mapping[str, bytes], *, beside: Path) -> bool:
    """Make the folder `target` with these files, by one rename of a finished folder.

    Args:
        target: the folder; its parent is there.
        files: content by name.
        beside: a folder of the same file system, where unfinished work lies meanwhile.

    Returns:
        Whether this call made it; a folder that another process made first is kept as it is.
    """
    temporary = beside / f"{target.name}.{secrets.token_hex(8)}"
    with _named(target):
        os.mkdir(temporary)
        try:
            for name, content in files.items():
                _write_file(temporary / name, content)
            _sync_directory(temporary)
            os.rename(temporary, target)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            # A rename onto a folder with files in it: somebody was faster.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and target.is_dir():
                return False
            raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_directory(target.parent)
    return True


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Name the target in an error of the disk, which knows handles and temporary names only.

    What the caller reads meanwhile may fail as well, and then says of which file.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is None or target.name in str(error.filename)
        if error.errno in OF_DISK and ours:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def _write(handle: int, content: bytes) -> None:
    """Write all of `content`, in as many calls as the system needs."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _write_file(path: Path, content: bytes) -> None:
    """Write a new file and sync it; its handle is closed whatever happens."""
    handle = os.open(path, os.O_WRONLY | NEW, 0o666)
    try:
        _write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable, where the system can open one."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except PermissionError:  # Windows opens no directories
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
