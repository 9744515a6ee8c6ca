"""Stopping: the first Ctrl-C or SIGTERM lets its batch end, a second stops at once; lost processes are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

from ditstack.errors import Unfinished

TOGETHER = 0.5
"""Signals this near to each other are one: a terminal and a launcher may both pass on the same Ctrl-C."""
GRACE = 30.0
"""After a process was lost, how long this one may take to notice by itself before it is ended."""


class Halt(BaseException):
    """Stop at once."""


class Stopping:
    """Whether this process was asked to stop, and by what."""

    def __init__(self) -> None:
        self.signal = 0
        self.lost = ""
        """Which other process was lost; empty while all are well."""
        self.sampling = False
        """Whether the loop over batches runs, which ends by itself once it is asked to."""
        self._at = 0.0
        self._before: dict[int, Any] = {}
        self._children: list[subprocess.Popen[Any]] = []
        self._parent = 0

    @property
    def asked(self) -> bool:
        return bool(self.signal or self.lost)

    def listen(self) -> None:
        """Take SIGINT and SIGTERM over, from whoever has them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before != self._heard:
                self._before.setdefault(number, before)
                signal.signal(number, self._heard)

    def leave(self) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._parent and (number == signal.SIGINT or self.signal):
            return  # the first process passes on what all may have heard, and ends the others when it stops at once
        if self.signal and time.monotonic() - self._at < TOGETHER:
            return
        again, self.signal, self._at = bool(self.signal), number, time.monotonic()
        for child in self._children:
            child.send_signal(signal.SIGTERM)
        if again or not self.sampling:
            raise Halt

    def watch(self, trainer: Any) -> None:
        """Look after the processes that Lightning launched, or after the one that launched this one.

        Lightning's own observer kills the whole run without a word when a child is lost; here it ends with a sentence.
        """
        launched = getattr(trainer.strategy.launcher, "procs", None)
        if launched:
            self._children = list(launched)
            launched.clear()
            threading.Thread(target=self._watch_children, daemon=True).start()
        elif launched is not None and trainer.local_rank > 0 and not self._parent:
            self._parent = os.getppid()
            threading.Thread(target=self._watch_parent, daemon=True).start()

    def _watch_children(self) -> None:
        while not self.lost:
            time.sleep(0.2)
            for place, child in enumerate(self._children, 1):
                if child.poll():
                    how = f"was killed by signal {-child.returncode}" if child.returncode < 0 else "failed"
                    self.lost = f"the process of rank {place} {how}"
        self._end_soon(2)

    def _watch_parent(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(0.2)
        self.lost = "the first process is gone"
        self._end_soon(2)

    def _end_soon(self, code: int) -> None:
        """A process that waits for a lost one inside a library hears nothing: end it from here."""
        until = time.monotonic() + GRACE
        while self.sampling or time.monotonic() < until:
            time.sleep(0.2)
        if not self._parent:
            print(self.sentence(), file=sys.stderr, flush=True)
        self.end_children()
        os._exit(code)

    def end_children(self, patience: float = 0) -> None:
        """Leave no process behind; each may take some seconds to end by itself."""
        for child in self._children:
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def sentence(self) -> str:
        return f"{self.lost}; finished pictures are kept, and the same command resumes"

    def check(self) -> None:
        """Raise where another process was lost.

        Raises:
            Unfinished: with the sentence.
        """
        if self.lost:
            raise Unfinished(self.sentence())
