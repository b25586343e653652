"""How evaluations are run by default: prompt, sampling and samples, as the authors of each dialect publish them."""

from pydantic import Field

from parallel_reason.limits import Limits
from parallel_reason.record import FrozenRecord
from parallel_reason.sampling import SamplingParams
from parallel_reason.tasks import Task
from parallel_reason.tasks.countdown.task import Countdown

SMALL_SET = 100  # problems; larger sets are sampled once a problem, as NPR does with MATH-500


class Defaults(FrozenRecord):
    """What a run has where its caller gives nothing.

    Attributes:
        prompt: name of a prompt, or None for the problem alone.
        samples: of each problem.
        tokens_per_thread: see `Limits`.
        problems: how many of the test set, the first ones; None for all.
        source: where it is published, in words.
    """

    prompt: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    samples: int = Field(1, ge=1)
    tokens_per_thread: int = 32768
    problems: int | None = None
    source: str

    def sampling(self, seed: int) -> SamplingParams:
        """The sampling parameters, with a seed."""
        return SamplingParams(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, n=self.samples, seed=seed
        )

    def limits(self) -> Limits:
        """The limits of each trace."""
        return Limits(tokens_per_thread=self.tokens_per_thread)


EMBEDDED = Defaults(problems=1000, source="the README's figures of the embedded model")
OTHERS = Defaults(
    prompt="boxed", temperature=0.6, top_p=0.95, top_k=20, samples=32, source="the model card of Qwen3; 32 samples"
)
BY_DIALECT = {
    "npr": Defaults(
        prompt="npr", temperature=1.0, top_p=0.7, samples=8, tokens_per_thread=40000,
        source="NPR (2512.07461), evals/README: avg@8",
    ),
    "multiverse": Defaults(
        prompt="multiverse_boxed", temperature=0.6, top_p=0.95, samples=8,
        source="Multiverse (2506.09991): 8 seeds, 32K tokens; the prompt with which NPR evaluates it",
    ),
    "threadweaver": Defaults(
        prompt="threadweaver", temperature=0.6, top_p=0.95, samples=8,
        source="ThreadWeaver (2512.07843): temperature and top-p of its evaluation; 8 samples as in its validation",
    ),
    "parallel_r1": Defaults(
        prompt="parallel_r1", temperature=1.0, samples=16, source="Parallel-R1 (2509.07980): Mean@16 and Pass@16"
    ),
    "parathinker": Defaults(
        prompt="parathinker", temperature=0.6, top_p=0.95, samples=16,
        source="ParaThinker's prompt; sampling of DeepSeek-R1's model card, on whose distillations it stands",
    ),
    "ssft": Defaults(
        prompt="ssft", temperature=0.7, top_p=0.95, samples=8,
        source="SSFT: temperature 0.7, top-p 0.95, 32,768 tokens; 8 samples",
    ),
}  # fmt: skip


def defaults(task: Task, dialect: str, problems: int) -> Defaults:
    """The published settings for a task in a dialect.

    Args:
        problems: how many the test set has.
    """
    if isinstance(task, Countdown):
        return EMBEDDED
    found = BY_DIALECT.get(dialect, OTHERS)
    return found if problems <= SMALL_SET else found.model_copy(update={"samples": 1})
