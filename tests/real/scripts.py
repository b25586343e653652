"""What the real model is made to write, for each dialect: the tags by a grammar, the text between them by itself."""

from dataclasses import dataclass

from parallel_reason import Limits, SamplingParams, Session
from parallel_reason.dialects import bind, find, grafts
from parallel_reason.prepare.preparation import WRITTEN_AS_TEXT
from parallel_reason.sampling import StructuredOutputsParams

# Characters of several tokens each, and a letter with a mark of its own.
SIGNS = "🦜 漢字 e\u0301"
TEXT, LINE = "[A-Za-z0-9 ,.]{8,24}", "[A-Za-z][A-Za-z0-9 ,]{4,16}"  # a tag in quotes would not count
CHILD = f"{TEXT}{SIGNS}{TEXT}"
FREE = 120  # tokens of a root whose grammar ends at its fork, at most
MESSAGES = [{"role": "user", "content": "Name two birds 🦜 and say 漢字 in one sentence each."}]
STATE = (
    "Moving to Node #0\nCurrent State: 27:[22, 26, 31, 53], Operations: []\n"
    "Generated Node #0,0: 27:[22, 31, 27] Operation: 53-26=27\n"
    "Generated Node #0,1: 27:[22, 26, 22] Operation: 53-31=22\n"
)


@dataclass(frozen=True)
class Script:
    """One dialect, as regular expressions.

    Attributes:
        root: what the root writes before it forks, without ``fork``.
        fork: the tag at which it forks; empty if it forks at the start, or at its end of text.
        after: what it writes from there on.
        child: what a child writes, without ``end``.
        end: its last tag, with ``#`` for the number of the child; empty if it ends at its end of text.
        children, forks: in the whole trace. What is taken back at a fork, as in apr, does not count for a grammar.
        options: of the dialect.
        prompt: where the chat does not do.
    """

    root: str = ""
    fork: str = ""
    after: str = ""
    child: str = CHILD
    end: str = ""
    children: int = 2
    forks: int = 1
    options: tuple[tuple[str, object], ...] = ()
    prompt: str | None = None


def items(tag, close="\n"):
    """Two list items with numbers."""
    return "".join(f"<{tag}>{number}: {LINE}</{tag}>{close}" for number in (1, 2))


SCRIPTS = {
    "spawn_join": Script(
        f"{TEXT}<spawn>{LINE}<sep>{LINE}", "</spawn>", child=f"{CHILD}<return>{LINE}", end="</thread>"
    ),
    "multiverse": Script(
        f"{TEXT}<Parallel>\n<Goal>\n{items('Outline')}",
        "</Goal>", f"{TEXT}</Conclusion>\n</Parallel>{TEXT}", end="</Path>",
    ),
    "npr": Script(
        f"{TEXT}<guideline>\n{items('plan')}", "</guideline>", f"{TEXT}</takeaway>{TEXT}", end="</step>"
    ),
    "threadweaver": Script(
        f"{TEXT}<Parallel>\n<Outlines>\n{items('Outline')}", "</Outlines>", f"</Parallel>{TEXT}", end="</Thread>"
    ),
    "parallel_r1": Script(TEXT, "<Parallel>", f"{TEXT}</Summary>{TEXT}", end="</Path>"),
    "parathinker": Script(after=f"{TEXT}</summary>", end="</think#>", options=(("paths", 2),)),
    "ssft": Script(child=rf"{CHILD}\\boxed\{{[0-9]{{2}}\}}", options=(("paths", 2),)),
    "apr": Script(
        "<Calling Sub Searches>\n"
        + "".join(f"<Start Sub Search {k} at level 1> Moving to Node #0,{k}\n" for k in range(2))
        + "<End Calling Sub Searches>\n",
        prompt=STATE,
    ),
    "dc_cot": Script(TEXT, "<spawn_workers>", TEXT, end="</worker_#>", children=3),
    "async_think": Script(
        f"{TEXT}<FORK-1>{LINE}", "</FORK-1>",
        f"{TEXT}<FORK-2>{LINE}</FORK-2>{TEXT}<JOIN-1>{TEXT}<JOIN-2>{TEXT}<ANSWER>{LINE}</ANSWER>",
        f"{CHILD}<RETURN>{LINE}", "</RETURN>", forks=2,
    ),
}  # fmt: skip
# A grammar ends at a tag that is a token, so the tags after the first fork of async_think can only be forced as text.
AS_TOKENS = [name for name in SCRIPTS if name not in (*WRITTEN_AS_TEXT, "async_think")]
AS_TEXT = [name for name in SCRIPTS if name != "spawn_join"]
NO_GRAFT = [name for name, script in SCRIPTS.items() if not grafts(name, **dict(script.options))]


def session_of(engine, name):
    """A session of a dialect over an engine that may serve others too."""
    return Session(engine, bind(name, engine.tokenizer, **dict(SCRIPTS[name].options)))


def limits_of(name, tokens=900):
    """Bounds within which a script is written to its end, unless there are fewer ``tokens``."""
    return Limits(tokens=tokens, tokens_per_thread=300, depth=1, forks=SCRIPTS[name].forks)


def sampling_of(engine, name, **options):
    """Parameters by which the threads of a trace write the script of a dialect.

    Where tags are tokens, a grammar ends before the last of them, and no token with ``<`` in it but tags is sampled.
    """
    script = SCRIPTS[name]
    tags = set(find(name).tags.values())
    vocabulary = engine.tokenizer.get_vocab()
    whole = tags <= vocabulary.keys()
    split = [token for word, token in vocabulary.items() if "<" in word and word not in tags]
    bias = dict.fromkeys([*split, *engine.eos_ids], -100.0) if whole else {}

    def rules(body, last, after=""):
        regex = body if whole else body + last + after
        others = [vocabulary[tag] for tag in tags if whole and tag not in body + last + after]
        return {
            "structured_outputs": StructuredOutputsParams(regex=regex) if regex else None,
            "logit_bias": {**bias, **dict.fromkeys(others, -100.0)} or None,
            "temperature": 1.0,
        }

    ends = [script.end.replace("#", str(number + 1)) for number in range(script.children)]
    children = {f"0.{number}": SamplingParams(**rules(script.child, end)) for number, end in enumerate(ends)}
    root = rules(script.root, script.fork, script.after)
    most = {"max_tokens": FREE} if whole or name == "apr" else {}
    return SamplingParams(**root, **most, threads=children, seed=5, **options)
