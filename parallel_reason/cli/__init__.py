"""The ``parallel-reason`` command. One file a command."""
