"""Sequential reasoning rewritten to parallel traces, as Multiverse and ThreadWeaver made their training data.

    python -m rl.rewrite rl/configs/rewrite.toml

A model is asked in stages what of a text can run in parallel, and to make small changes so that every part stands
alone. Every reply is checked, and kept in ``replies.jsonl``; a run that was killed goes on after the last one. Traces
ready for `rl.sft` are in ``kept.jsonl``, all other samples with their reasons in ``rejected.jsonl``.
"""

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field, model_validator
from tqdm.auto import tqdm

from parallel_reason import (
    EngineError,
    InputError,
    Limits,
    ParallelReasonError,
    SamplingParams,
    Session,
)
from parallel_reason.record import FrozenRecord
from rl.config import read_config
from rl.rewriting import PIPELINES
from rl.rewriting.results import KEPT, Results
from rl.rewriting.rewriter import Grading, Rewriter
from rl.rewriting.source import Sample, read_samples
from rl.rewriting.stage import RejectionError
from rl.rewriting.store import Reply, ReplyStore
from rl.rewriting.target import Target
from rl.run_folder import open_run


class RewriteConfig(FrozenRecord):
    """A run of ``python -m rl.rewrite``.

    Attributes:
        out: the folder of the run.
        source: JSONL, ``{"problem": ..., "reasoning": ..., "answer": ..., "id": ...}`` a line.
        pipeline: whose stages and dialect.
        train_model: a folder or Hub id; the traces are in its tokens, after its chat template.
        prompt: under which it will be asked, a name or a file; the one that was published with the dialect if None.
        model, engine, engine_options: what rewrites. The options may be others when a run goes on, such as an address.
        chat_template_kwargs: of that model, such as ``{ enable_thinking = false }``.
        sampling: of every reply; attempt number ``k`` has the seed ``seed + k``, if there is a seed.
        limits: of every reply.
        attempts: replies to one question at most.
        at_once: samples that are under way.
        grading: of answers: by math-verify, or as integers.
        max_distance: of a rewritten text from its original: Levenshtein's over the longer length. Multiverse's paper
            has 0.2, its code 0.4.
    """

    out: Path
    source: Path
    pipeline: Literal["multiverse", "threadweaver"] = "multiverse"
    train_model: str
    prompt: str | None = None
    model: str | None = None
    engine: str = "vllm"
    engine_options: dict[str, Any] = Field(default_factory=dict)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    sampling: SamplingParams = SamplingParams(temperature=0.6, top_p=0.95)
    limits: Limits = Limits(tokens_per_thread=8192)
    attempts: int = Field(3, ge=1)
    at_once: int = Field(64, ge=1)
    grading: Grading = "math"
    max_distance: float = Field(0.4, ge=0, le=1)

    @model_validator(mode="after")
    def _attempts_differ(self) -> "RewriteConfig":
        if self.sampling.n != 1:
            raise ValueError(f"sampling.n is {self.sampling.n}; a question has one reply at a time, see attempts")
        if self.attempts > 1 and not self.sampling.temperature:
            raise ValueError(f"attempts={self.attempts} at temperature 0 are all alike; give attempts=1")
        return self


async def rewrite(config: RewriteConfig) -> dict[str, Any]:
    """Rewrite every sample, or go on with the run that is in ``config.out``; returns the summary.

    Raises:
        ParallelReasonError, OSError: naming what is wrong; replies so far are kept.
    """
    samples = read_samples(config.source)
    if config.grading == "integer":
        check_integers(samples)
    pipeline = PIPELINES[config.pipeline]
    target = Target(config.train_model, pipeline.dialect, config.prompt or pipeline.dialect)
    open_run(config.model_copy(update={"engine_options": {}, "at_once": 1}), config.out)  # these two may change
    with ReplyStore(config.out / "replies.jsonl") as store, Results(config.out) as results:
        session = await Session.start(config.model, dialect="none", engine=config.engine, **config.engine_options)
        async with session:
            if not session.engine.tokenizer.chat_template:
                raise InputError(f"model {session.engine.model!r} has no chat template, with which it is asked")
            ask = partial(ask_session, session, config)
            rewriter = Rewriter(pipeline, target, store, ask, config.attempts, config.grading, config.max_distance)
            await run_all(rewriter, samples, results, config.at_once)
        return results.summary(store.usage(), store.refusals())


async def run_all(rewriter: Rewriter, samples: list[Sample], results: Results, at_once: int) -> None:
    """Rewrite samples, ``at_once`` at a time; if that cannot go on, the others end too."""
    slots = asyncio.Semaphore(at_once)
    bar = tqdm(total=len(samples), desc="samples", dynamic_ncols=True)

    async def one(sample: Sample) -> None:
        async with slots:
            try:
                results.keep(await rewriter.trace(sample))
            except RejectionError as error:
                results.reject(sample.id, error)
            except EngineError as error:  # of this request; others may go through, and this one in the next run
                results.unfinished[str(error)] += 1
            bar.update()

    tasks = [asyncio.create_task(one(sample)) for sample in samples]
    with bar:
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ask_session(session: Session, config: RewriteConfig, messages: list[dict[str, Any]], attempt: int) -> Reply:
    """The reply of a model to messages.

    Raises:
        RejectionError: the messages cannot be sent, such as those that are longer than the window.
        EngineError: the engine failed.
    """
    sampling = config.sampling
    if sampling.seed is not None:
        sampling = sampling.model_copy(update={"seed": sampling.seed + attempt})
    chat = {"chat_template_kwargs": config.chat_template_kwargs}
    try:
        [trace] = await session.run([messages], sampling, config.limits, chat=chat)
    except InputError as error:
        raise RejectionError("cannot be asked", str(error)) from None
    if trace.status not in ("finished", "length"):
        raise EngineError(trace.errors[0] if trace.errors else trace.stop_reason)
    ended = trace.status == "finished"
    ledger = trace.ledger
    return Reply(
        text=trace.root.text, ended=ended, prompt_tokens=ledger.prompt_tokens, sampled_tokens=ledger.sampled_tokens
    )


def check_integers(samples: list[Sample]) -> None:
    """Raise InputError if an answer is no integer."""
    for sample in samples:
        if sample.answer is not None and not re.fullmatch(r"[+-]?[0-9]{1,9}", sample.answer):
            raise InputError(f'sample {sample.id!r:.60} has the answer {sample.answer!r:.60}; use grading = "math"')


def main(
    config: Annotated[Path, typer.Argument(help="A TOML file; rl/configs/rewrite.toml is an example.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every setting, defaults too, and stop.")] = False,
) -> None:
    """Rewrite sequential reasoning to parallel traces for rl.sft. The same command goes on with an interrupted run."""
    read = read_config(RewriteConfig, config)
    if dry_run:
        typer.echo(read.model_dump_json(indent=2))
        return
    summary = asyncio.run(rewrite(read))
    typer.echo(f"kept {summary['kept']} traces in {read.out / KEPT}")
    for reason, count in summary["rejected"].items():
        typer.echo(f"{count:6} rejected: {reason}")
    usage = summary["usage"]
    typer.echo(f"{usage['requests']} replies: {usage['sampled_tokens']} tokens, to {usage['prompt_tokens']} of prompts")
    if unfinished := sum(summary["unfinished"].values()):
        raise EngineError(
            f"{unfinished} samples are unfinished; run the same command again: {next(iter(summary['unfinished']))}"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:  # of these, a full disk: replies so far are kept
        raise SystemExit(f"error: {error}") from None
