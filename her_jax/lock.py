"""One process at a time in a folder, or at a file.

The lock is the operating system's on the folder itself: it leaves no file behind, and a process
that ends, however it does, lets go of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from her_jax.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows cannot lock folders
    fcntl = None


@contextlib.contextmanager
def alone(folder: Path, named: str = "run") -> Iterator[None]:
    """Keeps every other process that asks out of a folder, within the block.

    Where folders cannot be locked, on Windows and some network drives, nobody is kept out.

    Args:
      folder: or file; a missing one is neither made nor locked.
      named: the option or argument that names it, for the error.

    Raises:
      UserError: if another has the folder.
    """
    try:
        handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError:
        handle = None
    if fcntl is None or handle is None:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{named}: another process writes to {folder}; wait for it, or stop it"
            ) from None
        except OSError:
            pass  # a drive without locks
        yield
    finally:
        os.close(handle)
