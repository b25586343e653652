"""vLLM in this process: threads are requests of one ``AsyncLLM``, batched continuously. Imports nothing of vLLM."""
