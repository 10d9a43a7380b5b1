"""Every way a run can end other than well, as one small tree.

RetainError                 1   a bug of ours, or what nobody foresaw (`cl_steps.foreign`)
├── UsageError              2   wrong use or parameters
├── NoUsableData            3   nothing that can be used was found
├── StaleRun                4   another run promoted first: trigger a new run
├── IntegrityError          5   a digest or signature does not match
│   └── FaultsFound             what a check that went through to its end found
├── Unavailable             6   a remote or a resource is not there now: try again
└── NotPromoted                 how `retain night` says that it ended without a promotion
    ├── NothingToDo        10
    ├── HeldForPerson      11
    └── RejectedByGate     12

A message is one sentence that says what is wrong and what to do.
"""


def first_line(error: BaseException) -> str:
    """What an error of a library says first, or what it is called where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class RetainError(Exception):
    """The root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(RetainError):
    """The command, a parameter or a workspace is not as it must be."""

    exit_code = 2


class NoUsableData(RetainError):
    """Data was asked for and nothing usable is there."""

    exit_code = 3


class StaleRun(RetainError):
    """The champion changed since this run began."""

    exit_code = 4


class IntegrityError(RetainError):
    """Bytes are not what their digest or signature says."""

    exit_code = 5


class FaultsFound(IntegrityError):
    """A check went through to its end and found faults: `result` is all that it found, which the command prints."""

    def __init__(self, sentence: str, result: object) -> None:
        super().__init__(sentence)
        self.result = result


class Unavailable(RetainError):
    """A remote or a resource cannot be reached now; the same command may work later."""

    exit_code = 6


class NotPromoted(RetainError):
    """A night that ended as it should, without a promotion."""


class NothingToDo(NotPromoted):
    """No update: quiet, or too few new assets."""

    exit_code = 10


class HeldForPerson(NotPromoted):
    """A person has to answer."""

    exit_code = 11


class RejectedByGate(NotPromoted):
    """The candidate was worse somewhere."""

    exit_code = 12
