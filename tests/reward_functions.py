"""Reward functions as users write them, good and bad."""

import os
import time


def short(trace, correct):
    return -float(trace.ledger.sampled_tokens) if correct else 0.0


def raises(trace, correct):
    raise KeyError("no such key")


def hangs(trace, correct):
    time.sleep(1000)


def dies(trace, correct):
    os._exit(3)


def no_number(trace, correct):
    return float("nan")


def raises_after_an_update(trace, correct):
    if any(span.policy_version for thread in trace.threads for span in thread.spans):
        raise RuntimeError("the judge is not there")
    return float(correct)
