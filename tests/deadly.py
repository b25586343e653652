"""A dialect that kills its process when it sees a certain prompt: what a prompt that crashes an engine looks like."""

import os
import signal
from typing import ClassVar

from pydantic.dataclasses import dataclass

from parallel_reason.dialects.spawn_join import SpawnJoin


@dataclass(frozen=True, config={"extra": "forbid"})
class Deadly(SpawnJoin):
    """``deadly`` is the beginning of the prompt, as token ids."""

    name: ClassVar[str] = "deadly"
    deadly: tuple[int, ...] = ()

    def step(self, view):
        if self.deadly and tuple(view.ids[: len(self.deadly)]) == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(view)
