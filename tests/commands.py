"""The command in a process of its own, where the process is what is tested; the fixture ``command`` is much faster."""

import os
import pty
import subprocess
import sys
import tempfile

COMMAND = [sys.executable, "-c", "from parallel_reason.cli.app import main; main()"]
TORCH = ["--engine", "torch"]  # starts in seconds; for tests in which the engine does not matter
PROBLEM = "22,26,31,53=27"


def error_line(done):
    """The one line of an error."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.rstrip("\n")


def call(*args, text="", **options):
    """Run it to its end; ``text`` is its standard input, as text or as bytes."""
    data = text if isinstance(text, bytes) else text.encode()
    command = [*COMMAND, *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]
    done = subprocess.run(command, input=data, **{"capture_output": True, "timeout": 300, **options})
    done.stdout, done.stderr = (part and part.decode() for part in (done.stdout, done.stderr))
    return done


def call_on_terminal(*args, stream="stdout"):
    """Run it with one stream on a terminal of 80 columns.

    Returns:
        The exit status, what the terminal got, and what the other stream got.
    """
    here, there = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    with tempfile.TemporaryFile() as piped:
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)], stdin=subprocess.DEVNULL, **{stream: there, other: piped},
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"},
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
