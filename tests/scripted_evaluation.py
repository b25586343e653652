"""An evaluation over the scripted engine, as a program that can be killed; it starts in seconds.

python -m tests.scripted_evaluation FOLDER PROBLEMS SAMPLES DELAY_S
"""

import sys

from parallel_reason import ParallelLLM, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.evaluation import evaluate, make_plan
from parallel_reason.loop import BackgroundLoop

WRITTEN = "1+2=3,3+3=6"


class Characters:
    """Every character is a token; 0 is the end of text."""

    eos_token_id, eos_token, bos_token_id, unk_token_id, all_special_tokens = 0, "\0", None, None, []

    def __len__(self):
        return 128

    def encode(self, text, **options):
        return list(text.encode("ascii"))

    def convert_ids_to_tokens(self, token):
        return chr(token)

    def decode(self, ids, **options):
        return bytes(ids).decode("ascii")


async def _session(delay_s):
    tokenizer = Characters()
    engine = ScriptedEngine.from_texts(tokenizer, {"0": [WRITTEN]}, delay_s=lambda request: delay_s)
    return Session(engine, bind("none", tokenizer), traces_at_once=3)


def main(folder, problems, samples, delay_s):
    llm = ParallelLLM.__new__(ParallelLLM)  # over an engine that `start` does not know by name
    llm._loop, llm._owner = BackgroundLoop(), None
    llm.session = llm._loop.wait(_session(float(delay_s)))
    plan = make_plan("countdown", "none", problems=int(problems), sampling={"n": int(samples)})
    evaluate(llm, plan, folder, concurrency=3)
    llm._loop.end(llm.session.close())


if __name__ == "__main__":
    main(*sys.argv[1:])
