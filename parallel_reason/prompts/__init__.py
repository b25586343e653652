"""Prompts: versioned files with named variables and one strict renderer; those that are shipped, and one's own.

What is shipped stands in the folder ``prompts`` of the repository, and in the wheel. A prompt is chosen by its name or
by the path of a file.
"""

from parallel_reason.prompts.files import load, names
from parallel_reason.prompts.template import PromptTemplate

__all__ = ["PromptTemplate", "load", "names"]
