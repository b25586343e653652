"""Accuracy on held-out Countdown problems, with its cost: the README's figures of the embedded model.

    python -m evals.countdown --problems 1000

It is ``parallel-reason eval countdown``, whose options it takes.
"""

import sys

from parallel_reason.cli.app import main

if __name__ == "__main__":
    main(["eval", "countdown", *sys.argv[1:]])
