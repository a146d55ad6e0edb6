"""What a person did or what happened to their machine: shown as one message, without a traceback."""


class UserError(Exception):
    """Bad input or a failed environment. The message says what was got, what was wanted, what to do."""


class RewardError(UserError):
    """A reward model failed or returned something that is not a finite score per image."""


class Stopped(Exception):  # noqa: N818 -- no error
    """Asked to end (SIGTERM) and ended in good order: nothing is lost, and the same command goes on from there."""
