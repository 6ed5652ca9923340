"""Files that are written as a whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def open_to_replace(path: str | Path, mode: str, **options: Any) -> Iterator[IO]:
    """Open a file for writing that replaces `path` once it is complete and on the disk.

    A process that is killed on the way leaves the old file as it was.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
