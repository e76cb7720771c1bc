"""Who may write to a shard folder, and where they put what lasts only as long as they do."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ove.errors import BadShard

_SCRATCH = ".scratch-"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; BadShard if there is one."""
    sentence = f"{out}: another run is writing to this folder; wait for it or give another --out."
    with held(out / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB, sentence):
        yield


@contextmanager
def held(path: Path, how: int, sentence: str) -> Iterator[None]:
    """Holds the lock of a file, `how` as in `fcntl.flock`; it ends with this process, however that ends.

    BadShard with the `sentence` if others hold it and `how` is not to wait, or where the file system has no locks.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError as error:
            raise BadShard(sentence) from error
        except OSError as error:
            raise BadShard(
                f"{path}: cannot be locked ({error.strerror}); use a file system with locks (Lustre: mount it with -o flock)."
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A hidden folder within `out` for copies and temporary files; removed at the end, or, after a kill, by the next run."""
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_SCRATCH}*"):
        handle = os.open(left, os.O_RDONLY)
        try:
            if _taken(handle):  # whoever made it is gone
                shutil.rmtree(left)
        finally:
            os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
    handle = os.open(folder, os.O_RDONLY)
    try:
        _taken(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
