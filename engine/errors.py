"""The errors a user can meet, each with the exit code its command ends with.

A SuiteError is shown as one `error: ...` line without a traceback (engine/cli.py). backbones/errors.py has more.
"""

from suite_error import SuiteError as SuiteError

STOPPED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: stopped on request with the state saved; run again to continue


class ConfigError(SuiteError, ValueError):
    """The command or the configuration cannot be run as given."""

    exit_code = 2


class DataError(SuiteError):
    """The data set or one of its files cannot be used."""

    exit_code = 3


class DivergedError(SuiteError):
    """A loss or a gradient is not finite. Raised before the weights move."""

    exit_code = 4


class CheckpointError(SuiteError):
    """A checkpoint or the storage under the run folder cannot be used."""

    exit_code = 5


class MemoryExhaustedError(SuiteError):
    """The device ran out of memory."""

    exit_code = 6


class RankLostError(SuiteError):
    """Another process of a run on several ranks is gone or no longer answers; the last checkpoint stands."""

    exit_code = 7


class StopRequested(SuiteError):
    """A signal asked the run to stop; its state is saved and `--resume` continues it."""

    exit_code = STOPPED_EXIT_CODE
