"""The exception tree. Every error the project raises on purpose is one of these.

Two questions decide the class: can a retry help (`TransientError`), or must a person change
something (`PermanentError`)? The message of a permanent error says what to change. Not here:
anything that needs an import.
"""

from __future__ import annotations


class GreenopsError(Exception):
    """Base of all errors raised on purpose. Its message is fit to be shown to an operator as it is."""


class TransientError(GreenopsError):
    """The same call may succeed later: a timeout, a 429, a server error. Retried with backoff."""


class PermanentError(GreenopsError):
    """The same call fails for ever. The message says what was found and what to change."""


class ConfigurationError(PermanentError):
    """A setting or a file under ops/ is wrong: file or variable, field, found, allowed."""


class BadInput(PermanentError):
    """What a person typed or handed in is wrong. The command line exits with 2."""


class ProviderError(PermanentError):
    """An outside service answered, and the answer cannot be used."""


class SchemaViolation(PermanentError):
    """Rows do not fit the table they were meant for: table, column, row and value."""


class ResidencyViolation(PermanentError):
    """Work or data of a tenant would leave the area it is bound to: tenant, area, region and its area."""


class ObjectExists(PermanentError):
    """A write-once object is there already."""


class ObjectMissing(PermanentError):
    """No object under that key."""
