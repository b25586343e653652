"""What runs a trace: live threads and their transitions, the asyncio run, the text replay, and the session."""
