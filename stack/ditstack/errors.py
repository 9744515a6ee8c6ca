"""Everything that ditstack raises on purpose. A user can mend each of them; the command line exits with 2.

DitstackError
├── RecipeError      the recipe cannot be read, or says what cannot be; all reasons at once
├── Incompatible     the stages cannot stand on one another, or on this machine; all reasons at once
├── StaleFactors     low-rank factors were fitted to something other than what runs now
├── BadFile          a file or folder of the user's is missing, torn, unreadable or cannot be written
├── Unfinished       a batch ended before its end; what is finished is kept, and the same command resumes
└── BadPipeline      a pipeline cannot be loaded, or is built in a way that a stage cannot work on
"""

from __future__ import annotations

from collections.abc import Sequence


class DitstackError(Exception):
    """What the user can mend; its text is complete and needs no traceback."""


class _Reasons(DitstackError):
    """A headline and every reason under it."""

    def __init__(self, headline: str, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n  ".join([headline, *self.reasons]))


class RecipeError(_Reasons):
    """A recipe that cannot be read."""


class Incompatible(_Reasons):
    """A stack that cannot stand."""


class StaleFactors(DitstackError):
    """Factors that belong to other weights, another quantizer, other steps or another schedule."""


class BadFile(DitstackError):
    """A file or folder that cannot be used."""


class BadPipeline(DitstackError):
    """A pipeline that cannot be loaded or changed as asked."""


class Unfinished(DitstackError):
    """A batch that was cut off, or that another process still works on."""
