"""Training text in the form of each public system, and readings of it."""

from benchmarks.grammars import tokenizer_of
from parallel_reason.dialects import bind
from parallel_reason.runtime.replay import parse, problems

MULTIVERSE = """<Think>
a
<Parallel>
<Goal>
<Outline>
1: p
</Outline>
<Outline>
2: q
</Outline>
</Goal>
<Path>
1: xx
<Parallel>
<Goal>
<Outline>
1.1: r
</Outline>
<Outline>
1.2: s
</Outline>
</Goal>
<Path>
1.1: uuuuu
</Path>
<Path>
1.2: v
</Path>
<Conclusion>
w
</Conclusion>
</Parallel>
y
</Path>
<Path>
2: z
</Path>
<Conclusion>
c
</Conclusion>
</Parallel>
b
</Think>

Answer: 4<eos>"""
NPR = """<guideline>
<plan>1: p</plan>
<plan>2: q</plan>
</guideline>
<step>
1: xxx
</step>
<step>
2: y
</step>
<takeaway>
c
</takeaway>
<guideline>
<plan>1: r</plan>
</guideline>
<step>
1: z
</step>
<takeaway>
d
</takeaway>
b<eos>"""
THREADWEAVER = """a
<Parallel>
<Outlines>
<Outline>1: p</Outline>
<Outline>2: q</Outline>
</Outlines>
<Thread>
1: xxx
</Thread><Thread>
2: y
</Thread>
</Parallel>
b<eos>"""
PARALLEL_R1 = (
    "a<Parallel><Path>\nx\n</Path><Path>\nyyy\n</Path><Path>\nz\n</Path></Parallel>\n<Summary>\nc\n</Summary>\nb<eos>"
)
PARATHINKER = "<think1>xx</think1><think2>y</think2><summary>c</summary>"


GOAL = "<Parallel><Goal><Outline>1:o</Outline><Outline>2:o</Outline></Goal>"
END = "<Conclusion>\nc</Conclusion></Parallel>b<eos>"
PATHS = "<Path>\n1:x</Path><Path>\n2:y</Path>"


def read(name, text, **options):
    tokens = tokenizer_of([name])
    return parse(bind(name, tokens, **options), tokens, tokens.encode("Q"), tokens.encode(text))


def wrong(name, text, **options):
    """``(what, the text from the token on)`` of every problem."""
    tokens = tokenizer_of([name])
    ids = tokens.encode(text)
    found = problems(bind(name, tokens, **options), tokens, tokens.encode("Q"), ids)
    return [(problem.what, tokens.decode(ids[problem.at :])) for problem in found]
