"""Place: a path on a disk, or a URL of storage that fsspec knows, told apart by how it begins."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from ditstack.errors import BadFile

KINDS = "s3://, gs://, hf:// or memory://"
_FAULTS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "huggingface_hub.errors": ("HfHubHTTPError",),
}
"""What storage raises beside OSError, by the package that fsspec reaches it through."""


def is_url(place: str | Path) -> bool:
    """Also where a Path has taken one of the two slashes."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(place)) is not None and not Path(place).exists()


def normal(place: str | Path) -> str:
    """A URL with both its slashes and without one at the end."""
    scheme, _, rest = str(place).partition(":")
    return f"{scheme.lower()}://{rest.strip('/')}"


def filesystem(url: str, what: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it.

    Args:
        what: how a refusal calls the place, such as "--out".

    Raises:
        BadFile: the scheme is unknown, its package is missing, or it wants to know who is asking.
    """
    import fsspec

    scheme = url.partition(":")[0]
    if scheme not in fsspec.available_protocols():
        raise BadFile(f"{what} {url}: found the scheme {scheme!r}; wanted a folder, or a URL of {KINDS}")
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise BadFile(f"{what} {url} needs a package: {error}; pip install 'ditstack[cloud]'") from None
    except faults() as error:
        raise BadFile(f"{what} {url} cannot be reached: {sentence(error)}") from None


def faults() -> tuple[type[BaseException], ...]:
    """What reading and writing may raise, of the packages that are in use."""
    found: list[type[BaseException]] = [OSError, ValueError, NotImplementedError]
    for module, names in _FAULTS.items():
        if module.partition(".")[0] in sys.modules:
            loaded = importlib.import_module(module)
            found += [getattr(loaded, name) for name in names]
    return tuple(found)


def sentence(error: BaseException) -> str:
    """The reason in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:300]
