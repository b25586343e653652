"""What test_llm_doors.py runs in processes of its own."""

import os

from parallel_reason import EngineError, ParallelLLM

PROMPT = "22,26,31,53=27"
SHORT = {"tokens": 40}

NEVER_CLOSED = """
import sys
from parallel_reason import ParallelLLM  # a script without a __main__ guard
llm = ParallelLLM(engine=sys.argv[1])
print("ANSWER", llm.generate("22,26,31,53=27", limits={"tokens": 40})[0].status, flush=True)
stream = llm.stream_sync("22,26,31,53=27")  # under way when the program ends
next(stream)
input()
"""

INTERRUPTED = """
import multiprocessing, sys
from parallel_reason import ParallelLLM
print("READY", flush=True)
try:
    ParallelLLM(engine=sys.argv[1])
    print("LOADED")
except KeyboardInterrupt:
    print("INTERRUPTED", multiprocessing.active_children())
"""


def run_in_worker(engine):
    """Text of a trace that a worker process makes with a model of its own, which it never closes."""
    llm = ParallelLLM(engine=engine)
    return llm.generate(PROMPT, limits=SHORT)[0].text


def run_and_send(engine, pipe):
    pipe.send(run_in_worker(engine))
    pipe.close()


def said_in_a_forked_process(llm):
    """What a call says in a process that was forked off; 7 is its exit status if that is an EngineError."""
    pid = os.fork()
    if pid == 0:
        try:
            llm.generate(PROMPT, limits=SHORT)
        except EngineError as error:
            os._exit(7 if "belongs to process" in str(error) else 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
