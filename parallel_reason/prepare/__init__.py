"""Making a model ready for a dialect: its control tags as tokens, in a new folder."""

from parallel_reason.prepare.preparation import Prepared, prepare

__all__ = ["Prepared", "prepare"]
