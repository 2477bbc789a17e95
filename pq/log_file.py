"""Log files: rotated, for this user alone, and nothing in them is obeyed by a terminal that shows them."""

import logging
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, cast

from pq.display import harmless
from pq.private import opener

if TYPE_CHECKING:
    from io import TextIOWrapper


class LogFile(RotatingFileHandler):
    """A log of which each new file is private; its lines keep only characters that can be printed."""

    def _open(self) -> "TextIOWrapper":
        stream = open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=opener)  # noqa: SIM115  # the log
        return cast("TextIOWrapper", stream)

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, made harmless."""
        return harmless(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say nothing: the complaint about a full disk would be written to this very file."""
