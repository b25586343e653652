"""The openai engine: threads decode on running servers of ``/v1/completions``, such as ``vllm serve``."""
