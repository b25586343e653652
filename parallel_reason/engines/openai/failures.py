"""A server that did not answer, and what to make of it."""

import errno
import math
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

from parallel_reason.errors import first_line

BUSY = 429
GATEWAY = (502, 503, 504)  # what is behind the address cannot be reached
TRIED_AGAIN = (BUSY, *GATEWAY, 408, 500)
LONGEST_RETRY_AFTER_S = 60.0


class NoAnswerError(Exception):
    """A request that a server did not begin to answer, or whose answer broke off.

    Attributes:
        busy: the server refuses for a while.
        retry_after_s: how long, if it says so.
        down: it cannot be reached.
        late: it sent nothing for as long as it may.
    """

    def __init__(
        self,
        reason: str,
        *,
        busy: bool = False,
        retry_after_s: float | None = None,
        down: bool = False,
        late: bool = False,
    ) -> None:
        """``reason`` is one line that goes on from the name of the server."""
        super().__init__(reason)
        self.busy = busy
        self.retry_after_s = retry_after_s
        self.down = down
        self.late = late


def refusal(status: int, reason: str, retry_after: str | None) -> NoAnswerError:
    """The error for one of the statuses `TRIED_AGAIN`; ``retry_after`` is the header."""
    seconds = retry_after_s(retry_after)
    busy = status == BUSY or seconds is not None
    return NoAnswerError(reason, busy=busy, retry_after_s=seconds, down=status in GATEWAY and not busy)


def no_connection(error: BaseException, connections: int) -> NoAnswerError:
    """The error for a connection that failed or broke off, with its cause in words of the operating system."""
    cause = _cause(error)
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
        fix = f"raise `ulimit -n`, or lower connections={connections}"
        return NoAnswerError(f"cannot be reached ({first_line(cause)}); {fix}")
    return NoAnswerError(f"does not answer ({first_line(cause)})", down=True)


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for, 0 to `LONGEST_RETRY_AFTER_S`; None for none that can be read.

    Args:
        header: a number of seconds, or an HTTP date.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)


def _cause(error: BaseException) -> BaseException:
    """The first OSError of the chain that led to ``error``, which says most; ``error`` itself if there is none."""
    found = error
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            found = below
        several = below.exceptions if isinstance(below, BaseExceptionGroup) else ()
        below = several[-1] if several else below.__cause__ or below.__context__
    return found
