"""The one base of every error that a user can meet. It stands alone so that no package needs another for it."""


class SuiteError(Exception):
    """What is wrong, where, what was found and what to do, in its text. A command ends with its `exit_code`."""

    exit_code = 1
