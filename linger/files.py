"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["reading", "replaced"]


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], writer: str) -> Iterator[BinaryIO]:
    """An existing file to read; what is in the way is one sentence.

    Args:
        path: Of the file.
        writer: The call that writes such a file, for the message.

    Raises:
        FileNotFoundError: There is none.
        IsADirectoryError: The path is a folder.
        OSError: It cannot be opened.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115  closed below: errors of the block are the caller's
    except OSError as error:
        folder = "" if os.path.isabs(path) else f" in the folder {os.getcwd()!r}"
        why = {FileNotFoundError: f"there is no such file; {writer} writes one", IsADirectoryError: "it is a folder"}
        raise type(error)(
            f"cannot read {os.fsdecode(path)!r}{folder}: {why.get(type(error), error.strerror)}"
        ) from error
    with stream:
        yield stream


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes its name when the block ends; an exception leaves the old file, or none.

    The permissions of an old file stay. A link's target is replaced, not the link.

    Raises:
        FileNotFoundError: The folder is missing; the message names what the caller named, as those of all errors do.
        IsADirectoryError: The path is a folder.
        OSError: The folder is not writable.
    """
    given = os.fsdecode(path)
    target = os.path.realpath(given)
    folder = os.path.dirname(target)
    if not given or os.path.isdir(target):
        raise IsADirectoryError(f"cannot write {given!r}: {'it is a folder' if given else 'the path is empty'}")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {given!r}: there is no folder {folder!r}")
    try:
        handle, name = tempfile.mkstemp(prefix=".linger-", dir=folder)
    except OSError as error:
        raise type(error)(f"cannot write {given!r}: {error.strerror} in the folder {folder!r}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(name, _mode_of(target))
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _mode_of(path: str) -> int:
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
