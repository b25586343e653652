"""Sequential reasoning rewritten to parallel text, by a model that is asked in stages; see `rl.rewrite`.

A pipeline is a list of stages and a writer of text, in a file of its own: `multiverse`, `threadweaver`. The model only
names line numbers, plans, and small changes; text is moved by code, so that a stage can lose nothing of the original.
"""

from rl.rewriting.multiverse import MULTIVERSE
from rl.rewriting.stage import Pipeline
from rl.rewriting.threadweaver import THREADWEAVER

PIPELINES: dict[str, Pipeline] = {pipeline.dialect: pipeline for pipeline in (MULTIVERSE, THREADWEAVER)}
