"""Models with random weights that write a dialect: each token follows a Markov chain, and depends on all they see.

The logits of the next token are those of a Markov chain over the dialect's tags, plus what random layers make of
everything the token attends to. So sampling forks, nests and joins all the time, writes every malformed block sooner or
later, and a wrong position or a wrong mask changes the log-probs.
"""

import json
import math
import string
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from parallel_reason.dialects import find

FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "gemma": (GemmaConfig, GemmaForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}

# Steps: "a b 3" is from a to b with weight 3. Letters show where they stand: a, b in a root, x, y in a child, s after a
# join; `:o` is one token, so that a list's colon differs from that of a header.
CHAINS = {
    "multiverse": "a b|b a 2|b <Parallel> 3|b <eos>|<Parallel> <Goal>|<Goal> <Outline>|<Outline> 1|"
    "<Outline> 2|<Outline> 3|"
    "1 :o|2 :o|3 :o|:o </Outline>|</Outline> <Outline> 2|</Outline> </Goal> 2|: x|x y|y x 3|y </Path> 3|y <Parallel>|"
    "y <eos>|\n s|s s|s </Conclusion>|</Conclusion> </Parallel>|</Parallel> a|</Parallel> x",
    "npr": "a b|b a 2|b <guideline> 3|b <eos>|<guideline> <plan>|<plan> 1|<plan> 2|<plan> 3|1 :o|2 :o|3 :o|:o </plan>|"
    "</plan> <plan> 2|</plan> </guideline> 2|: x|x y|y x 3|y </step> 3|y <guideline>|y <eos>|\n s|s s|s </takeaway>|"
    "</takeaway> a|</takeaway> x",
    "threadweaver": "a b|b a 2|b <Parallel> 3|b <eos>|<Parallel> <Outlines>|<Outlines> <Outline>|"
    "<Outline> 1|<Outline> 2|"
    "<Outline> 3|1 :o|2 :o|3 :o|:o </Outline>|</Outline> <Outline> 2|</Outline> </Outlines> 2|: x|"
    "x y|y x 3|y </Thread> 6|"
    "y <eos> .3|\n </Parallel>|</Parallel> a",
    "parallel_r1": "a b|b a 2|b <Parallel> 3|b <eos>|<Path> x|x y|y x 3|y </Path> 3|y <eos>|"
    "<Summary> s|s s|s </Summary> 2|"
    "s <eos>|</Summary> a",
    "parathinker": "|".join(f"<think{i}> x|y </think{i}> .4" for i in range(1, 9))
    + "|x y|y x 3|y <eos>|<summary> s|s s 2|s </summary>",
    "spawn_join": "a b|b a 2|b <spawn> 3|b <eos>|<spawn> x|x y 2|x <sep>|x </spawn>|<sep> x|y x 2|"
    "y <return>|y </thread>|"
    "y <spawn> 3|<return> s|s s|s </thread>|s <eos> .3|</join> a",
    "ssft": "\n x|x y|y x 3|y \\boxed{|\\boxed{ 4 2|\\boxed{ 5|4 } 9|5 } 9|} x|} <eos> 3",
    "dc_cot": "a b|b a 2|b <spawn_workers> 3|b <eos> 3|x y|y x|y </worker_1> 2|y </worker_2> 2|y </worker_3> 2|"
    "y <eos> .3|</worker_1> x|</worker_2> x|</worker_3> x|</spawn_workers> a|"
    + "|".join(f"<worker_{k}> x" for k in range(1, 4)),
    # A worker begins after the newline that follows its sub-query.
    "async_think": "a b|b a 3|b <FORK-1> 2|b <FORK-2> 2|b <JOIN-1> 2|b <JOIN-2> 2|b <ANSWER> .5|b <eos> .5|<FORK-1> c|"
    "<FORK-2> d|c </FORK-1>|d </FORK-2>|</FORK-1> a|</FORK-2> a|<JOIN-1> a|<JOIN-2> a|</JOIN-1> a|</JOIN-2> a|"
    "<ANSWER> g|g </ANSWER>|\n x|x y|y x 2|y <RETURN> 2|y <eos> .2|<RETURN> s|s s|s </RETURN> 2",
    # APR writes lines; some are tokens here. One names a node that no prompt holds.
    "apr": "\n a|a b|b a|b <Sub~Searches>|b <Calling~Sub~Searches> 3|b <eos>|<Calling~Sub~Searches> {0} 3|"
    "<Calling~Sub~Searches> {1} 3|<Calling~Sub~Searches> {2} .3|{0} {1}|{1} {0}|{0} <End~Calling~Sub~Searches>|"
    "{1} <End~Calling~Sub~Searches>|{2} <End~Calling~Sub~Searches>|<End~Calling~Sub~Searches> <eos> 9|] x|x y|y x 2|"
    "y Goal~Reached 2|Goal~Reached x|y <eos>|<End~Sub~Searches> a".format(
        *(f"<Start~Sub~Search~{k}~at~level~1>~Moving~to~Node~#0,{node};" for k, node in enumerate((0, 1, 7)))
    ),
}
PROMPTS = {
    "apr": "Moving to Node #0\nCurrent State: 27:[22, 26, 31, 53], Operations: []\n"
    "Generated Node #0,0: 27:[22, 31, 27] Operation: 53-26=27\n"
    "Generated Node #0,1: 27:[22, 26, 22] Operation: 53-31=22\n"
}
WORDS = ["<eos>", "\n", ":", ":o", *" ,.#[]'+-*/=<>_", *string.digits, *string.ascii_letters]


def read(step: str) -> tuple[str, str, float]:
    """A step of a chain; ``~`` stands for a space and ``;`` for the end of a line within a word."""
    first, then, *weight = step.split(" ")
    first, then = (word.replace("~", " ").replace(";", "\n") for word in (first, then))
    return first, then, float(weight[0]) if weight else 1.0


def tokenizer(tags: list[str]) -> PreTrainedTokenizerFast:
    """A vocabulary of the tags, whole, and of single characters."""
    words = list(dict.fromkeys([*WORDS, *tags]))
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="<eos>")


def tokenizer_of(dialects: list[str]) -> PreTrainedTokenizerFast:
    """A vocabulary in which every tag of these dialects is one token."""
    tags = list(dict.fromkeys(tag for name in dialects for tag in find(name).tags.values()))
    words = {word for name in dialects for step in CHAINS[name].split("|") for word in read(step)[:2]}
    return tokenizer([*tags, *sorted(word for word in words - set(tags) - set(WORDS))])


def build(folder: str, family: str, dialects: list[str], seed: int = 0, window: int = 2048) -> str:
    """Write a model that writes these dialects, and its tokenizer, to ``folder``."""
    words = tokenizer_of(dialects)
    vocabulary, size = words.get_vocab(), len(words)
    torch.manual_seed(seed)
    config, kind = FAMILIES[family]
    width = 160
    heads, kv_heads = (5, 1) if family == "qwen2" else (4, 2)  # in vLLM a head is the width over the heads
    model = kind(
        config(
            vocab_size=size, hidden_size=width, intermediate_size=128, num_hidden_layers=2, num_attention_heads=heads,
            num_key_value_heads=kv_heads, head_dim=32, max_position_embeddings=window, tie_word_embeddings=False,
            eos_token_id=0, bos_token_id=None, pad_token_id=0, initializer_range=0.08,
            **({"sliding_window": None} if family == "mistral" else {}),
        )
    ).eval()  # fmt: skip
    chain = torch.full((size, size), math.log(0.0002))
    for step in (step for name in dialects for step in CHAINS[name].split("|")):
        first, then, weight = read(step)
        chain[vocabulary[first], vocabulary[then]] = math.log(weight)
    directions = torch.linalg.qr(torch.randn(width, width))[0][:size]
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(
            directions * (3 if family.startswith("gemma") else 16)
        )  # Gemma scales them itself
        model.get_output_embeddings().weight.copy_(chain.T @ directions / width**0.5 + torch.randn(size, width) * 0.02)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if family == "qwen2":
        spell_as_bytes(Path(folder, "tokenizer.json"))
    return folder


def spell_as_bytes(saved: Path) -> None:
    """Rename blanks as in a byte-level tokenizer, which transformers loads for Qwen2 whatever is saved."""
    tokens = json.loads(saved.read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["Ġ"], vocabulary["Ċ"] = vocabulary.pop(" "), vocabulary.pop("\n")
    saved.write_text(json.dumps(tokens))
