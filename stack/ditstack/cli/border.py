"""Border: however a command ends, the user reads one sentence, and the exit code says whose turn it is.

    0  done           2    the user can mend it: the sentence says how
    1  our fault      130  Ctrl-C (SIGINT)     143  SIGTERM     129  SIGHUP
    3  a gate was missed

Of our faults a trace is written to a file; with -v every trace is shown.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from rich.text import Text

from ditstack.cli.terminal import err
from ditstack.errors import DitstackError, Incompatible
from ditstack.files import home

NUMBERS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "JSM_NAMESPACE_RANK"),
)
"""Variables of launchers that libraries read as numbers when they are imported."""
MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Unable to allocate")
"""How libraries that raise no MemoryError speak of it."""


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def run(command: Callable[[], Any], usage: type[BaseException]) -> int:
    """Run a command; its exit code, after the sentence was said.

    Args:
        usage: what the command line's parser raises; it shows itself.
    """
    _open_streams()
    try:
        with _signals():
            _check_environment()
            code = command()
            sys.stdout.flush()
            return code or 0
    except usage as error:
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        return 2
    except BaseException as error:
        return _ending(error)


def _ending(error: BaseException) -> int:
    """Say what ended a command; the exit code."""
    if isinstance(error, SystemExit):
        return _flushed(error)
    if isinstance(error, Stopped):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):
        _discard(sys.stdout)
        return 0
    if _verbose():
        with suppress(OSError):
            traceback.print_exception(error)
    sentence = _mendable(error)
    _say(sentence or _fault(error))
    if isinstance(error, OSError):
        _discard(sys.stdout)  # what could not be written is not tried again at exit
    return 2 if sentence else 1


def _flushed(stop: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _ending(error)
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _mendable(error: BaseException) -> str:
    """What the user can mend, in a sentence; empty for a fault of ours."""
    if isinstance(error, DitstackError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror}; free some space, or change its permissions or its name"
    if isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY):
        return "out of memory: ask for smaller pictures, fewer at once, or a smaller model (see `ditstack doctor`)"
    return ""


def _fault(error: BaseException) -> str:
    """A fault of ours in a sentence, its trace in a file."""
    words = " ".join(str(error).split())
    found = f"{type(error).__name__}{f': {words[:200]}' if words else ''}"
    if file := _pipelines_own(error):
        told = f"{file} of the pipeline raised {found}; where the pipeline does so without ditstack too, another "
        told += "sampler.size or model.arguments may be what it wants, else this is a bug in ditstack"
    else:
        told = f"this is a bug in ditstack: {found}"
    return f"{told}; the trace is in {_write_trace(error)}"


def _pipelines_own(error: BaseException) -> str:
    """The file of diffusers or transformers that raised an error; empty where it was raised elsewhere."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != "__torch_function__"]
    files = [Path(frame.filename) for frame in frames]
    own = [file for file in files if "torch" not in file.parts]
    return own[-1].name if own and {"diffusers", "transformers"} & {*own[-1].parts} else ""


def _write_trace(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (_traces, lambda: Path(tempfile.gettempdir())):
        with suppress(OSError, DitstackError):
            path = folder() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            head = f"ditstack {sys.argv[1:]}\npython {platform.python_version()} on {platform.platform()}\n\n"
            path.write_text(head + text, encoding="utf-8", errors="backslashreplace")
            return str(path)
    return f"no file, since none can be written:\n{text}"


def _traces() -> Path:
    return home() / "traces"


def _say(sentence: str) -> None:
    with suppress(OSError):
        err.print(Text(sentence), style="red", soft_wrap=True)


def _verbose() -> bool:
    return logging.getLogger("ditstack").isEnabledFor(logging.INFO)


@contextmanager
def _signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP unwind like Ctrl-C, so that nothing is left behind; one that is ignored stays so."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    except ValueError:
        pass  # not the main thread: whoever started it has the signals
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _check_environment() -> None:
    """Refuse what libraries would fall over when they are imported.

    Raises:
        Incompatible: with every variable that is no number.
    """
    given = {name: os.environ[name] for name in NUMBERS if name in os.environ}
    wrong = [name for name, value in given.items() if not value.strip().removeprefix("-").isdecimal()]
    if wrong:
        hint = "wanted a number; a launcher sets it, else leave it unset"
        found = [f"{name}: found {given[name]!r}; {hint}" for name in wrong]
        raise Incompatible("the environment cannot be used:", found)


def _open_streams() -> None:
    """A stream that was closed before the start reads and writes nothing; no file may take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def _discard(stream: Any) -> None:
    """Let what is still to be written to a stream go nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)
