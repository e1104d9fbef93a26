"""The errors of this package. Each carries the exit code its command ends with (see the README's list)."""


class BackboneError(ValueError):
    """The network cannot be built or used as asked: unknown name, impossible size, unusual layout."""

    exit_code = 2


class WeightsError(ValueError):
    """A file of weights does not fit the network. Nothing was loaded."""

    exit_code = 2


class WeightsFileError(Exception):
    """A file of weights is missing, damaged, or could run code when opened."""

    exit_code = 5
