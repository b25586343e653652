"""What the pure functions of a dialect cost: ``step`` at a fork and ``join``, for each token sampled for them."""

import statistics
import time
from typing import Any

from benchmarks.grammars import tokenizer
from parallel_reason.dialects import BUILT_IN, bind
from parallel_reason.dialects.base import ChildResult, StartFork, StoppedAt, ThreadView
from parallel_reason.dialects.quotes import is_quoted

CHILDREN, OUTLINE, NEW = 8, 20, 200  # children of a fork, tokens of each outline, tokens of each child
PLAIN = "x" * OUTLINE
NODES = [f"0,{k}" for k in range(CHILDREN)]

# What the root samples before it forks, with one item for each child.
BLOCKS = {
    "spawn_join": "<spawn>" + "<sep>".join([PLAIN] * CHILDREN) + "</spawn>",
    "apr": "".join(f"Generated Node #{node}: 27:[1, 2, 3] Operation: 53-22=31\n" for node in NODES)
    + "<Calling Sub Searches>\n"
    + "".join(f"<Start Sub Search {k} at level 1> Moving to Node #{node}\n" for k, node in enumerate(NODES))
    + "<End Calling Sub Searches>\n<eos>",
    "multiverse": "<Goal>" + "".join(f"<Outline>{k}: {PLAIN}</Outline>" for k in range(CHILDREN)) + "</Goal>",
    "npr": "<guideline>" + "".join(f"<plan>{k}: {PLAIN}</plan>" for k in range(5)) + "</guideline>",
    "threadweaver": "<Outlines>" + "".join(f"<Outline>{k}: {PLAIN}</Outline>" for k in range(CHILDREN)) + "</Outlines>",
    "parallel_r1": PLAIN + "<Parallel>",
    "parathinker": "",
    "ssft": "",
    "dc_cot": PLAIN + "<spawn_workers>",
    "async_think": f"<FORK-1>{PLAIN}</FORK-1>",
}


def seconds_a_token(repeats: int = 20) -> dict[str, float]:
    """Median seconds for each sampled token, by dialect; with tags as tokens, and, where that works, as text."""
    found = {}
    for kind in BUILT_IN:
        found[kind.name] = _measure(kind.name, tokenizer(list(kind.tags.values())), repeats)
        if kind.name != "spawn_join":
            found[f"{kind.name}, tags as text"] = _measure(kind.name, tokenizer(["|"]), repeats)
    return found


def _measure(name: str, words: Any, repeats: int) -> float:
    dialect = bind(name, words)
    ids = words.encode(BLOCKS[name], add_special_tokens=False)
    stopped_at: StoppedAt = "start" if not ids else "eos" if ids[-1] == words.eos_token_id else "stop"
    view = ThreadView(depth=0, ids=ids, sampled=ids, sampled_before_join=0, joins=0, stopped_at=stopped_at)
    text = words.encode("y" * NEW, add_special_tokens=False)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        assert not is_quoted(words.decode(ids))  # a run asks this too wherever a thread stops
        action = dialect.step(view)
        assert isinstance(action, StartFork)
        children = [ChildResult(child.header, text, text, ran=True, ended="stop") for child in action.children]
        dialect.join(view, children)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / (len(ids) + len(children) * NEW)
