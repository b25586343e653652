"""A solution that two pipelines rewrite, a server that gives their replies, and a folder with a model to train."""

import asyncio
import json
import threading

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from parallel_reason import flatten, read_traces
from rl.rewrite import RewriteConfig, rewrite
from tests.fake_server import DONE, FakeServer, Reply, _FakeHandler, event
from tests.letters import byte_tokenizer

LINES = [
    "We need the sum of two products, and both are small.",
    "Take the first product, 3 * 4, and write it as a sum of threes.",
    "That is 3 + 3 + 3 + 3, which is 6 + 6 = 12 when it is added in pairs.",
    "So the first of the two products is 12, and 12 / 4 = 3 agrees with it.",
    "",
    "Next, take the second product, 5 * 6, and write it as a sum of fives.",
    "That is 5 + 5 + 5 + 5 + 5 + 5, which is 10 + 10 + 10 = 30 in pairs.",
    "So the other product is 30, and 30 / 6 = 5 agrees with it, as it should.",
    "The sum is 12 + 30 = 42, so the answer is \\boxed{42}.",
]
SAMPLE = {"id": "a", "problem": "What is 3 * 4 + 5 * 6?", "answer": 42, "reasoning": "\n".join(LINES)}
STEPS = "S1: L1-L1: sets out\nS2: L2-L4: first product\nS3: L5-L7: second product\nS4: L8-L8: adds"
EDITED = LINES[5].replace("Next, take", "Take")
REPLIES = {  # by stage, of a teacher that does it well
    "steps": STEPS,
    "parts": "none",
    "groups": "P1: [S2, S3]: neither needs the other",
    "multiverse_goals": "1: Find 3 * 4.\n2: Find 5 * 6.\nConclusion: The products are 12 and 30.",
    "threadweaver_check": "1: passed: alone\n2: passed: alone",
    "threadweaver_edits": '[{"src": "Next, take", "dest": "Take"}]',
    "threadweaver_outlines": "1: Find 3 * 4.\n2: Find 5 * 6.",
}
ASKS = {  # what only the prompt of a stage says
    "steps": "Divide the solution into its main steps",
    "parts": "Divide each step that does several things",
    "groups": "Which neighbouring steps could",
    "part_groups": "Which neighbouring parts of one step",
    "multiverse_goals": "then the conclusion:",
    "multiverse_passages": "Write the passage and nothing else.",
    "threadweaver_check": "Check each thread",
    "threadweaver_edits": "Write a JSON list of changes",
    "threadweaver_outlines": "Write a plan for each thread",
}
TAGS = {
    "multiverse": ["Think", "Parallel", "Goal", "Outline", "Path", "Conclusion"],
    "threadweaver": ["Think", "Parallel", "Outlines", "Outline", "Thread", "Conclusion"],
}


def stage_of(prompt):
    """Which stage asks."""
    [stage] = [stage for stage, says in ASKS.items() if says in prompt]
    return stage


def good(prompt):
    """The reply of the teacher that does it well, to the text of a prompt; a passage loses its lead alone."""
    stage = stage_of(prompt)
    if stage == "multiverse_passages":
        passage = prompt.partition("A passage of what the first one wrote:\n")[2].partition("\n\nWrite this passage")[0]
        return passage.replace("Next, take", "Take")
    return REPLIES[stage]


def tokenizer():
    """Bytes, an end of text and a chat template."""
    found = byte_tokenizer()
    found.add_special_tokens({"eos_token": "<eos>", "pad_token": "<eos>"})
    found.chat_template = (
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return found


def build_model(folder):
    """A random Qwen3 over bytes; the tags are text to it."""
    torch.manual_seed(3)
    words = tokenizer()
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=8192, eos_token_id=256, pad_token_id=256,
        bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


class Teacher(FakeServer):
    """A server that answers what ``reply`` says to the text of a prompt; None lets the request hang.

    Attributes:
        prompts: texts of all prompts, as they came.
        hung: set once a request hangs.
    """

    def __init__(self, reply=good, window=20_000):
        models = json.dumps({"data": [{"id": "fake", "max_model_len": window}]})
        super().__init__(models=Reply(kind="application/json", body=models))
        self.RequestHandlerClass = _TeacherHandler
        self.reply, self.prompts, self.hung = reply, [], threading.Event()


class _TeacherHandler(_FakeHandler):
    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["max_tokens"] == 1:
            self._send(Reply(body=event(1, finish="length") + DONE))
            return
        prompt = bytes(token for token in body["prompt"] if token < 256).decode()
        self.server.prompts.append(prompt)
        said = self.server.reply(prompt)
        if isinstance(said, int):
            self._send(Reply(said, "application/json", '{"error": {"message": "no"}}'))
            return
        if said is None:
            self.server.hung.set()
            threading.Event().wait(60)
        ids = list(said.encode())[: body["max_tokens"]]
        ended = len(ids) < body["max_tokens"]
        self._send(Reply(body=event(*ids, *[256] * ended, finish="stop" if ended else "length") + DONE))


def config(folder, model, url, *samples, **changes):
    """A run in a folder over samples, `SAMPLE` alone if there are none."""
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps(sample) + "\n" for sample in samples or [SAMPLE]))
    values = {
        "out": folder / "run", "source": source, "train_model": model, "engine": "openai", "grading": "integer",
        "engine_options": {"base_url": url, "tokenizer": model}, "limits": {"tokens_per_thread": 2000},
    }  # fmt: skip
    return RewriteConfig.model_validate(values | changes)


def kept(folder):
    return list(read_traces(folder / "run" / "kept.jsonl"))


def rejected(folder):
    return [json.loads(line) for line in (folder / "run" / "rejected.jsonl").read_text().splitlines()]


def text(trace, model):
    return AutoTokenizer.from_pretrained(model).decode(flatten(trace))


def but(**replies):
    """The teacher that does it well, but for some stages: a reply, or what gives one to a prompt."""

    def reply(prompt):
        other = replies.get(stage_of(prompt))
        return good(prompt) if other is None else other(prompt) if callable(other) else other

    return reply


def runner(tmp_path, model):
    """``run(reply, *samples, **changes)``: a whole run; its summary, and the server that was asked."""

    def whole(reply=good, *samples, window=20_000, **changes):
        with Teacher(reply, window) as server:
            return asyncio.run(rewrite(config(tmp_path, model, server.url, *samples, **changes))), server

    return whole
