"""Locks: one file for each process of a run; the lock in it ends with its process, however that ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


class Locks:
    """The locks in one folder, by the rank of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[int, FileLock] = {}

    def path(self, rank: int) -> Path:
        return self.folder / f"lock-{rank}"

    def hold(self, rank: int, seconds: float = 0) -> bool:
        """Whether the lock is held now; False where another process holds it for longer than `seconds`.

        Raises:
            OSError: the folder cannot be written.
        """
        if rank not in self._held:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path(rank), thread_local=False)
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                return False
            self._held[rank] = lock
        return True

    def release(self, rank: int) -> None:
        if rank in self._held:
            self._held.pop(rank).release(force=True)

    def release_all(self) -> None:
        for rank in [*self._held]:
            self.release(rank)

    def ranks(self) -> list[int]:
        """Of every process that has or had a lock here."""
        found = [path.name.removeprefix("lock-") for path in self.folder.glob("lock-*")]
        return sorted(int(name) for name in found if name.isdecimal())
