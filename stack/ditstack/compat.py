"""Quiet: the import-time chatter of the libraries that we stand on, which says nothing to our users."""

from __future__ import annotations

import logging
import os
import warnings

NOISY = ("torchao", "transformers", "diffusers", "accelerate", "torch.utils._pytree", "bitsandbytes", "peft")


def hush() -> None:
    """Show only errors of other libraries. Called by the command line, never by the library."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore")
    logging.raiseExceptions = False  # a library that trips over its own log is no news to our users


def hush_loading() -> None:
    """No progress bars while weights load; for callers that show their own."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
