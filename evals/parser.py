"""What a dialect's own work costs: ``step`` at a fork and ``join``, over the tokens that were sampled for them."""

import statistics
import string
import time
from typing import Any

from parallel_reason.dialects import OWN, bind
from parallel_reason.dialects.base import Returned, Split, View

CHILDREN, OUTLINE, NEW = 8, 20, 200  # children of a fork, tokens of each outline, tokens of each child
PLAIN = "x" * OUTLINE
NODES = [f"0,{k}" for k in range(CHILDREN)]

# The text at which the root forks, its prompt aside; one item a child.
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
}


def tokenizer(tags: list[str]) -> Any:
    """A vocabulary of characters, and of these tags as tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<eos>", *string.printable, *tags]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ["<eos>", *tags]])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def seconds_a_token(repeats: int = 20) -> dict[str, float]:
    """Median seconds for each sampled token, by dialect; with tags as tokens, and, where that works, as text."""
    found = {}
    for kind in OWN:
        found[kind.name] = _measure(kind.name, tokenizer(list(kind.tags.values())), repeats)
        if kind.name != "spawn_join":
            found[f"{kind.name}, tags as text"] = _measure(kind.name, tokenizer([]), repeats)
    return found


def _measure(name: str, words: Any, repeats: int) -> float:
    dialect = bind(name, words)
    ids = words.encode(BLOCKS[name], add_special_tokens=False)
    ended: Any = "start" if not ids else "eos" if ids[-1] == words.eos_token_id else "stop"
    view = View(depth=0, ids=ids, sampled=ids, since=0, joins=0, ended=ended)
    text = words.encode("y" * NEW, add_special_tokens=False)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        act = dialect.step(view)
        assert isinstance(act, Split)
        children = [Returned(child.header, text, text, True, "stop") for child in act.children]
        dialect.join(view, children)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) / (len(ids) + len(children) * NEW)
