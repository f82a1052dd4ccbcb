"""Mistakes a user can make or meet, each with the exit status the command returns for it.

An expected mistake is raised where it is found, as one of these, and says what was expected, what
was found and what to do; ``neurostorm_bids.cli`` prints it without a traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a user can understand and mend."""

    exit_status = 1


class UsageError(UserError):
    """The command line, or the arguments of a function, do not fit together."""

    exit_status = 2


class DatasetError(UserError):
    """The input is not a dataset that this program can use."""

    exit_status = 16


class AnalysisLevelError(UserError):
    """The analysis level is unknown or not available."""

    exit_status = 17


class SelectionError(UserError):
    """The filters leave nothing to do."""

    exit_status = 18


class DataError(UserError):
    """A file was read, but what it holds cannot be used."""

    exit_status = 65


class MissingFileError(UserError):
    """A file that is needed is not there: a model, a mask, a template, a preprocessed series."""

    exit_status = 66


class OutputError(UserError):
    """The output cannot be written."""

    exit_status = 73


class ReadError(UserError):
    """Reading broke off: an input/output failure."""

    exit_status = 74


class TemporaryError(UserError):
    """The device is busy or out of memory after backing off; the same call may work later."""

    exit_status = 75
