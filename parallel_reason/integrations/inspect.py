"""A provider for inspect-ai: ``inspect eval task.py --model parallel_reason/FOLDER -M dialect=npr -M threads=16``.

Found by its entry point. Every thread is a span of inspect's log, below that of its parent, from its start to its end.
"""

import asyncio
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from parallel_reason import Limits, ParallelLLM, SamplingParams, Trace, TraceWriter
from parallel_reason.errors import EngineError, InputError
from parallel_reason.integrations.settings import limits_and_options
from parallel_reason.integrations.spans import ThreadSpans
from parallel_reason.runtime.events import TraceFinished
from parallel_reason.trace import Message

EMBEDDED = "embedded"  # the name of the embedded model
USED = ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "logit_bias", "seed")
HARMLESS = {  # what inspect itself does with a model, and what says nothing about one answer
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections",
    "system_message", "cache", "cache_prompt", "batch", "max_tool_output", "reasoning_history", "internal_tools",
    "parallel_tool_calls", "num_choices", "stop_seqs",
}  # fmt: skip


class ParallelReasonAPI(ModelAPI):  # type: ignore[misc]
    """inspect-ai's model over a `ParallelLLM`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as every provider of inspect has it
        dialect: str | None = None,
        engine: str = "vllm",
        prompt: str | None = None,
        traces: str | None = None,
        **options: Any,
    ) -> None:
        """Load a model.

        Args:
            model_name: a folder or Hub id, or ``embedded``.
            dialect, engine: as of `ParallelLLM`.
            prompt: the name or path of a prompt into which the user's message is put.
            traces: a JSONL file to which every trace is written.
            options: fields of `Limits`, such as ``tokens_per_thread=4096``; all others are the engine's.
        """
        super().__init__(model_name, base_url, api_key, [], config)
        limits, rest = limits_and_options(options)
        if base_url is not None or api_key is not None:
            raise InputError(
                "parallel_reason runs a model itself; give servers to -M engine=openai by its own arguments"
            )
        folder = None if model_name == EMBEDDED else model_name
        self.llm = ParallelLLM(folder, dialect=dialect, engine=engine, limits=Limits(**limits), **rest)
        self._prompt = prompt
        self._writer = None if traces is None else TraceWriter(traces)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer messages, ``num_choices`` times.

        Raises:
            InputError: tools, or a setting that has no meaning here.
            EngineError: a trace failed.
        """
        if tools:
            raise InputError("parallel_reason calls no tools; use a solver without them, such as generate()")
        prompt, options = self._asked(input)
        base = sampling_of_config(config)
        runs = [self._trace(prompt, base, number, options) for number in range(config.num_choices or 1)]
        traces = await asyncio.gather(*runs)
        return _output(self.model_name, traces)

    def close(self) -> None:
        """End the engine."""
        if self._writer is not None:
            self._writer.close()
        self.llm.close()

    def max_connections(self) -> int:
        """How many answers inspect asks for at once; the engine batches them."""
        return 64

    def _asked(self, messages: list[ChatMessage]) -> tuple[Any, dict[str, Any]]:
        """The prompt, and how it is rendered; a model without a chat template gets the text of the one message."""
        said: list[Message] = [{"role": message.role, "content": message.text} for message in messages]
        if self._prompt is None and self.llm.tokenizer.chat_template:
            return said, {"chat": {}}
        if len(said) != 1:
            raise InputError(
                f"{self.model_name} has no chat template, or a prompt of its own, and takes one message of the user, "
                f"not {len(said)}"
            )
        return said[0]["content"], {} if self._prompt is None else {"prompt": self._prompt}

    async def _trace(self, prompt: Any, sampling: SamplingParams, number: int, options: dict[str, Any]) -> Trace:
        if number and sampling.seed is not None:
            sampling = sampling.model_copy(update={"seed": sampling.seed + number})
        finished: list[Trace] = []
        async with ThreadSpans() as spans:
            async for event in self.llm.stream(prompt, sampling, **options):
                if isinstance(event, TraceFinished):
                    finished.append(event.trace)
                else:
                    await spans.take(event)
        [trace] = finished
        if self._writer is not None:
            self._writer.write(trace)
        if trace.status == "failed":
            raise EngineError(f"a trace failed: {trace.stop_reason}")
        return trace


@modelapi(name="parallel_reason")  # type: ignore[untyped-decorator]
def parallel_reason() -> type[ParallelReasonAPI]:
    """What inspect looks up by name."""
    return ParallelReasonAPI


def sampling_of_config(config: GenerateConfig) -> SamplingParams:
    """The settings of inspect as ours; stops end the root, and no child.

    Raises:
        InputError: a setting that has no meaning here.
    """
    given = config.model_dump(exclude_none=True)
    unknown = next((name for name in given if name not in HARMLESS and name not in USED), None)
    if unknown is not None:
        raise InputError(f"{unknown}={given[unknown]!r:.60} has no meaning for parallel_reason; leave it out")
    fields = {name: given[name] for name in USED if name in given}
    seed = fields.pop("seed", None)
    stops = tuple(given.get("stop_seqs", ()))
    return SamplingParams(**fields, seed=seed, stop=stops, below=SamplingParams(**fields) if stops else None)


def _output(model: str, traces: list[Trace]) -> ModelOutput:
    ledgers = [trace.ledger for trace in traces]
    prompt = sum(ledger.prompt_tokens for ledger in ledgers)
    sampled = sum(ledger.sampled_tokens for ledger in ledgers)
    return ModelOutput(
        model=model,
        choices=[_choice(model, trace) for trace in traces],
        usage=ModelUsage(input_tokens=prompt, output_tokens=sampled, total_tokens=prompt + sampled),
        time=max(ledger.wall_s for ledger in ledgers),
        metadata={
            "traces": [
                {
                    "id": trace.id,
                    "threads": len(trace.threads),
                    "sampled_tokens": trace.ledger.sampled_tokens,
                    "critical_path_tokens": trace.ledger.critical_path_tokens,
                    "acceleration": trace.ledger.acceleration,
                }
                for trace in traces
            ]
        },
    )


def _choice(model: str, trace: Trace) -> ChatCompletionChoice:
    text = trace.text if trace.answer is None else trace.answer
    reasons: dict[str, StopReason] = {"finished": "stop", "length": "max_tokens"}
    message = ChatMessageAssistant(content=text, model=model, source="generate")
    return ChatCompletionChoice(message=message, stop_reason=reasons.get(trace.status, "unknown"))
