"""The errors of this package. Each carries the exit code its command ends with (docs/run-folder.md lists them)."""

from suite_error import SuiteError


class BackboneError(SuiteError, ValueError):
    """The network cannot be built or used as asked: unknown name, impossible size, unusual layout."""

    exit_code = 2


class WeightsError(SuiteError, ValueError):
    """A file of weights does not fit the network, or holds values no network can have. Nothing was loaded."""

    exit_code = 2


class WeightsFileError(SuiteError):
    """A file of weights is missing, damaged, or could run code when opened."""

    exit_code = 5
