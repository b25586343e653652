"""The command in a process of its own, as a person or a script calls it."""

import os
import pty
import subprocess
import sys
import tempfile

COMMAND = [sys.executable, "-c", "from parallel_reason.cli.app import main; main()"]
TORCH = ["--engine", "torch"]  # starts in seconds; for tests in which the engine does not matter
PROBLEM = "22,26,31,53=27"


def call(*args, text="", **options):
    """Run it to its end; ``text`` is its standard input, as text or as bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    command = [*COMMAND, *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]
    done = subprocess.run(command, input=data, **{"capture_output": True, "timeout": 300, **options})
    done.stdout, done.stderr = (part and part.decode() for part in (done.stdout, done.stderr))
    return done


def call_on_terminal(*args, stream="stdout"):
    """Run it with one stream on a terminal of 200 columns.

    Returns:
        The exit status, what the terminal got, and what the other stream got.
    """
    here, there = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    with tempfile.TemporaryFile() as piped:
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)], stdin=subprocess.DEVNULL, **{stream: there, other: piped},
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
        )  # fmt: skip
        os.close(there)
        shown = b""
        try:
            while part := os.read(here, 1 << 16):
                shown += part
        except OSError:  # what Linux says when the other end is closed
            pass
        os.close(here)
        status = process.wait(timeout=60)
        piped.seek(0)
        return status, shown.decode(), piped.read().decode()
