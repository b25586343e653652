"""A model for lm-evaluation-harness: its tasks, answered by threads.

    python -m parallel_reason.integrations.lm_eval run --model parallel_reason --model_args dialect=npr,... --tasks ...

is ``lm_eval run`` with this model known to it. lm-evaluation-harness has a registry and no entry point, so something
must import this module; in Python, ``import parallel_reason.integrations.lm_eval`` is enough.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from parallel_reason import Limits, ParallelLLM, TraceWriter
from parallel_reason.errors import EngineError, InputError
from parallel_reason.integrations.scoring import Continuation, log_likelihoods
from parallel_reason.integrations.settings import limits_and_options, sampling_of_task
from parallel_reason.trace import Trace

OF_HARNESS = ("batch_size", "max_batch_size", "device", "max_length")  # which it passes to every model


@register_model("parallel_reason")
class ParallelReasonLM(TemplateLM):  # type: ignore[misc]
    """lm-evaluation-harness's model over a `ParallelLLM`.

    Attributes:
        llm: what decodes.
        traces_of: problems that were generated for, to the trace of each, in order.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        dialect: str | None = None,
        engine: str = "vllm",
        prompt: str | None = None,
        traces: str | None = None,
        **options: Any,
    ) -> None:
        """Load a model.

        Args:
            pretrained: a folder or Hub id; the embedded Countdown model if None.
            dialect, engine: as of `ParallelLLM`.
            prompt: the name or path of a prompt into which each context is put.
            traces: a JSONL file to which every trace is written.
            options: fields of `Limits`, such as ``tokens_per_thread=4096``; all others are the engine's.
        """
        super().__init__()
        limits, rest = limits_and_options(options, without=OF_HARNESS)
        self.limits = Limits(**limits)
        self.llm = ParallelLLM(pretrained, dialect=dialect, engine=engine, limits=self.limits, **rest)
        self.tokenizer = self.llm.tokenizer
        self._prompt = prompt
        self._traces = traces

    @property
    def eot_token_id(self) -> int:
        """The model's end of text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def max_length(self) -> int:
        """Tokens that the model can see."""
        return self.llm.engine.context

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return self.llm.engine.model.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own chat template."""
        return str(self.tokenizer.chat_template or "")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as a text, by the model's chat template."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; with the tokenizer's special tokens unless it begins with one or they are refused."""
        begin = self.tokenizer.bos_token
        special = not (begin and string.startswith(begin)) if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=special))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model answers to each context, cut at the first of its stops.

        ``until`` ends the root, and no child; ``max_gen_toks`` bounds each thread. A trace that failed is an error.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(number)
        answers: dict[int, str] = {}
        with ExitStack() as stack:
            write = None if self._traces is None else stack.enter_context(TraceWriter(self._traces)).write
            for numbers in groups.values():
                sampling, until = sampling_of_task(requests[numbers[0]].args[1])
                found = self.llm.generate(
                    [requests[number].args[0] for number in numbers],
                    sampling,
                    prompt=self._prompt,
                    use_tqdm=not disable_tqdm,
                    on_trace=write,
                )
                for number, trace in zip(numbers, found, strict=True):
                    answers[number] = _answer(trace, until)
                    self.cache_hook.add_partial("generate_until", requests[number].args, answers[number])
        return [answers[number] for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text, in disjoint windows of the model's length."""
        windows = []
        for request in requests:
            rolling = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length - 1, 1
            )
            windows.append([make_disjoint_window(window) for window in rolling])
        flat = [(("", ""), context, text) for each in windows for context, text in each]
        scores = iter(self._loglikelihood_tokens(flat, disable_tqdm=disable_tqdm))
        return [sum(next(scores)[0] for _ in each) for each in windows]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
    ) -> list[tuple[float, bool]]:
        """For each, the log-prob of the continuation given the context, and whether greedy decoding gives it."""
        lost = next((said for said, _, text in requests if not text), None)
        if lost is not None:
            raise InputError(
                f"no token is left of the continuation {lost[1]!r:.60} of a context that ends {lost[0][-60:]!r}"
            )
        texts = [_fitting(context, text, self.max_length) for _, context, text in requests]
        return self.llm.run_coroutine(log_likelihoods(self.llm.session, texts))


def _answer(trace: Trace, until: Sequence[str]) -> str:
    if trace.status == "failed":
        raise EngineError(f"a trace failed: {trace.stop_reason}")
    text = trace.text if trace.answer is None else trace.answer
    for stop in until:
        text = text.partition(stop)[0]
    return text


def _fitting(context: list[int], text: list[int], window: int) -> Continuation:
    """Without what the model cannot see, from the left, as the harness's own models do."""
    ids = (context + text)[-window:]
    return Continuation(ids, min(len(text), len(ids) - 1))


def main() -> None:
    """``lm_eval``'s own command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
