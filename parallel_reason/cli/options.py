"""Options that commands share, as `typer` reads them; in ``--help`` they stand in panels."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

OPTIONS, ENGINE_OPTIONS, CHAT_OPTIONS, SAMPLING = "--option", "--engine-option", "--chat-option", "--sampling"

_pairs: dict[str, Any] = {"metavar": "NAME=VALUE"}
_prompts = partial(typer.Option, rich_help_panel="Prompts")
_model = partial(typer.Option, rich_help_panel="Model")
_output = partial(typer.Option, rich_help_panel="Output")
_sampling = partial(typer.Option, rich_help_panel="Sampling, as in vLLM")
_limits = partial(typer.Option, rich_help_panel="Limits of each trace")

# Prompts
GivenPrompts = Annotated[list[str] | None, typer.Argument(help="A prompt; several are run at once.", metavar="PROMPT")]
File = Annotated[
    Path | None,
    _prompts("--file", "-f", help="A file that is one prompt or, if named *.jsonl, one a line; - is standard input."),
]
Lines = Annotated[bool, _prompts("--lines", help="Every line of the file or pipe is a prompt.")]
JsonLines = Annotated[
    bool,
    _prompts(
        "--jsonl",
        help="Every line of the file or pipe is a JSON object, with a text under 'prompt' or a chat under 'messages', "
        "and perhaps an 'id', which traces keep as their task.",
    ),
]
Template = Annotated[
    str | None,
    _prompts(
        "--prompt", metavar="NAME", help="Put each prompt into this template, a name or a file: it makes models fork."
    ),
]
Chat = Annotated[
    bool | None,
    _prompts(
        "--chat/--no-chat", help="Whether prompts are messages of a user, in the model's chat template, or raw text."
    ),
]
System = Annotated[str | None, _prompts(help="The system message of a chat.")]
Reply = Annotated[
    str | None, _prompts("--continue", metavar="TEXT", help="How the reply in a chat begins; the model continues it.")
]
ChatOption = Annotated[
    list[str] | None,
    _prompts(CHAT_OPTIONS, **_pairs, help="A variable of the chat template, as TOML: enable_thinking=false."),
]

# Model
Model = Annotated[str | None, _model(help="A model folder or Hub id. Default: the embedded Countdown model.")]
Dialect = Annotated[
    str | None,
    _model(help="The grammar in which the model forks. Default: what the folder was prepared for, or spawn_join."),
]
Option = Annotated[list[str] | None, _model(OPTIONS, "-o", **_pairs, help="Of the dialect, as TOML: join_on=first.")]
Engine = Annotated[str, _model(help="What runs the model: vllm, torch or openai.")]
DtypeName = Literal["float32", "bfloat16", "float16"]
Dtype = Annotated[
    DtypeName | None,
    _model(
        metavar="DTYPE",
        help="Of weights and KV: float32, bfloat16 or float16. Default: float32 on a CPU, the model's own on a GPU.",
    ),
]
EngineOption = Annotated[
    list[str] | None,
    _model(
        ENGINE_OPTIONS,
        "-e",
        **_pairs,
        help="Of the engine, as TOML: compile=false, context=4096; or text: base_url=http://host/v1.",
    ),
]

# Output
Json = Annotated[
    bool,
    _output(
        "--json",
        help="Print every trace as a line of JSON when it finishes. Its prompt_index and sample, counted from 0, say "
        "which it is.",
    ),
]
Out = Annotated[Path | None, _output(help="Append every trace to this file when it finishes, as --json prints it.")]
Transcript = Annotated[
    bool, _output("--transcript", help="Print all that was written, for people, in place of a line for each thread.")
]

# Sampling
Temperature = Annotated[float, _sampling(help="0 is greedy.")]
TopP = Annotated[float | None, _sampling(help="Keep the most likely tokens that have this probability together.")]
TopK = Annotated[int | None, _sampling(help="Keep this many of the most likely tokens.")]
MinP = Annotated[float | None, _sampling(help="Keep tokens that are this likely, relative to the most likely one.")]
PresencePenalty = Annotated[
    float | None, _sampling(help="Taken off the logit of a token that the thread sampled before.")
]
FrequencyPenalty = Annotated[float | None, _sampling(help="The same, for every time that it sampled it.")]
RepetitionPenalty = Annotated[float | None, _sampling(help="Divides logits of tokens that were there before.")]
Stop = Annotated[list[str] | None, _sampling(metavar="TEXT", help="A thread that writes it ends; may be given again.")]
MaxTokens = Annotated[int | None, _sampling(help="Most tokens that a thread samples.")]
N = Annotated[int, _sampling(help="Traces for each prompt.")]
Seed = Annotated[int | None, _sampling(help="Makes sampling repeatable.")]
Logprobs = Annotated[int | None, _sampling(help="Record so many of the most likely tokens beside each sampled one.")]
Sampling = Annotated[
    list[str] | None,
    _sampling(
        SAMPLING,
        "-s",
        **_pairs,
        help="Another field of SamplingParams, as TOML: min_tokens=8, bad_words=['no'], below={temperature=1.2}.",
    ),
]

# Limits
Threads = Annotated[int | None, _limits(help="Most threads that decode at once.")]
Children = Annotated[int | None, _limits(help="Most children of one fork.")]
Forks = Annotated[int | None, _limits(help="Most forks.")]
Depth = Annotated[int | None, _limits(help="How deep threads may nest; 0 allows no fork.")]
TokensPerThread = Annotated[int | None, _limits(help="Most tokens sampled by one thread.")]
Tokens = Annotated[int | None, _limits(help="Most tokens sampled by all threads.")]
CriticalPathTokens = Annotated[
    int | None, _limits(help="Most tokens sampled on the longest chain of threads that wait for one another.")
]
DeadlineS = Annotated[float | None, _limits(help="Most seconds.")]
Context = Annotated[int | None, _limits(help="Most tokens of prompt and output that one thread sees.")]
