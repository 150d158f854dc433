"""Tracebacks of errors that are reported in one sentence, kept at log level debug."""

from __future__ import annotations

import logging
import traceback

_log = logging.getLogger(__name__)


def keep_traceback(error: BaseException) -> None:
    """Log the traceback of a caught exception at level debug; the caller reports it."""
    _log.debug("%r", error, exc_info=error)


def traceback_of(error: BaseException) -> str:
    """Traceback of an exception, as Python prints it."""
    return "".join(traceback.format_exception(error)).rstrip()
