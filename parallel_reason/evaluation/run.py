"""Problems of a task run into a folder, every sample written and graded as it finishes."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

from parallel_reason.errors import InputError
from parallel_reason.evaluation.figures import Figures, figures
from parallel_reason.evaluation.plan import Plan
from parallel_reason.evaluation.run_folder import RunFolder
from parallel_reason.evaluation.sample import Sample, sample_of
from parallel_reason.llm import ParallelLLM
from parallel_reason.runtime.session import Session
from parallel_reason.trace import Trace

GRADERS = 2  # threads that grade; those of the sympy graders have a process each
Grade = Callable[[Trace], Sample | None]


def evaluate(
    llm: ParallelLLM,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    concurrency: int = 256,
    on_start: Callable[[RunFolder], object] = lambda folder: None,
    on_sample: Callable[[Sample], object] = lambda sample: None,
    on_note: Callable[[str], object] = lambda note: None,
) -> Figures:
    """Run what a folder does not have yet, and write its figures.

    Args:
        out: the folder; it goes on if it has a run of the same settings.
        concurrency: problems that are started at once.
        on_start: called before anything is sampled.
        on_sample: called with each new sample, one at a time, from threads that grade.
        on_note: called with what was wrong with an earlier attempt's files or with a single problem, a line each.

    Raises:
        InputError: no problem can be asked, or the folder cannot be written or has a run of other settings.
    """
    problems = {problem.key: problem for problem in plan.problems}

    def grade(trace: Trace) -> Sample | None:
        problem = problems.get(trace.task or "")
        return sample_of(trace, plan.task, problem) if problem and trace.sample < plan.sampling.n else None

    settings = plan.settings(llm.session)
    with RunFolder(Path(out), settings, grade) as folder:
        for note in folder.notes:
            on_note(note)
        on_start(folder)
        with _Grading(folder, grade, on_sample) as grading:
            refused = llm.run_coroutine(_run(llm.session, plan, folder, grading, concurrency))
        if grading.error:
            raise InputError(f"cannot write into {out}: {grading.error.strerror}; what was written before is kept")
        for key, error in refused.items():
            on_note(f"problem {key!r:.60} was not run: {error}")
        if refused and not folder.samples:
            raise next(iter(refused.values()))
        found = figures(list(folder.samples.values()), settings.shape)
        folder.write_summary(found)
    return found


class _Grading:
    """Writes traces, and has them graded in threads: the event loop must not wait for a grader.

    Attributes:
        stop: ends the run.
        error: by which a file could not be written any more.
    """

    def __init__(self, folder: RunFolder, grade: Grade, on_sample: Callable[[Sample], object]) -> None:
        self.stop: Callable[[], object] = lambda: None
        self.error: OSError | None = None
        self._folder, self._grade, self._on_sample = folder, grade, on_sample
        self._graders = ThreadPoolExecutor(GRADERS)
        self._under_way: list[Future[None]] = []
        self._one_at_a_time = Lock()

    def __enter__(self) -> "_Grading":
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until all are graded; what a grader raised is raised."""
        self._graders.shutdown(wait=True)
        if error == (None, None, None):
            for one in self._under_way:
                one.result()

    def take(self, trace: Trace) -> None:
        """Write a trace, and have it graded."""
        try:
            self._folder.add_trace(trace)
        except OSError as error:  # raised from here it would only be counted, and the next ones run for nothing
            self._fail(error)
            return
        self._under_way.append(self._graders.submit(self._sample, trace))

    def _sample(self, trace: Trace) -> None:
        sample = self._grade(trace)
        if sample is None:
            return
        try:
            self._folder.add_sample(sample)
        except OSError as error:
            self._fail(error)
            return
        with self._one_at_a_time:
            self._on_sample(sample)

    def _fail(self, error: OSError) -> None:
        self.error = self.error or error
        self.stop()


async def _run(
    session: Session, plan: Plan, folder: RunFolder, grading: _Grading, concurrency: int
) -> dict[str, InputError]:
    """Run every sample that is not there yet, a problem at a time for each of ``concurrency`` workers.

    Traces are not kept: each is written and dropped.

    Returns:
        By key, the problems that the session refused, and why.
    """
    done, refused, program = set(folder.samples), {}, plan.program
    run = session.run if program is None else partial(session.run_program, program)
    waiting = iter([p for p in plan.problems if any((p.key, n) not in done for n in range(plan.sampling.n))])

    async def work() -> None:
        for problem in waiting:
            try:
                await run(
                    [problem.text], plan.sampling, plan.limits, prompt=plan.prompt, chat=plan.chat,
                    tasks=[problem.key], skip=done, on_trace=grading.take,
                )  # fmt: skip
            except InputError as error:  # such as a prompt longer than the window: the others are run
                refused[problem.key] = error

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    grading.stop = lambda: loop.call_soon_threadsafe(task.cancel)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(plan.problems))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    except asyncio.CancelledError:
        if not grading.error:
            raise
        task.uncancel()
    return refused
