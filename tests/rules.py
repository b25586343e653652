"""Rules on the logits of a thread, for engines beside one another."""

from tests.house import ask
from tests.letters import WORDS

RULES = [
    {"presence_penalty": 2.0},
    {"frequency_penalty": 2.0, "presence_penalty": -2.0},
    {"repetition_penalty": 4.0},
    {"logit_bias": {3: 4.0, 7: -4.0}},
    {"allowed_token_ids": [2, 3, 5, 8, 13], "min_p": 0.05},
    {"bad_words": ["a", "bc", "q"], "allowed_token_ids": [1, 2, 3, 4, 17]},
    {"min_tokens": 12, "stop_token_ids": [WORDS.index("c")], "logit_bias": {WORDS.index("c"): 4.0}},
    {"structured_outputs": {"regex": "([abc]{2}d)+"}},
    {"structured_outputs": {"choice": ["hello", "help", "helpful"]}, "repetition_penalty": 1.2, "top_k": 9},
]


def continued(house, ids, cuts, options):
    """The output of a thread that is cut into requests of so many tokens, as the runtime would continue it."""
    tokens, output = [], None
    for count in cuts:
        part = ask(
            f"part {len(tokens)}", ids + tokens, count, first_draw=len(tokens), sampled=tokens, tail=len(tokens),
            **options,
        )  # fmt: skip
        (output,) = house.all(part)
        tokens = tokens + output.ids
        if output.finish_reason == "stop":
            break
    output.ids = tokens
    return output
