"""Many engines on Ray behind the session: an actor each, restarted when it dies. Needs parallel-reason[ray]."""

from parallel_reason.fleet.settings import Fleet

__all__ = ["Fleet"]
