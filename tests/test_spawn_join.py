import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from parallel_reason.dialects import SpawnJoin, bind, options_of
from parallel_reason.dialects.base import ChildResult, Finish, Insert, Reject, StartFork, ThreadView
from parallel_reason.errors import InputError, ModelError
from parallel_reason.tasks.countdown.vocabulary import tokenizer

TOKENIZER = tokenizer()
DIALECT = bind("spawn_join", TOKENIZER)
TAGS = [TOKENIZER.get_vocab()[tag] for tag in SpawnJoin.tags.values()]
PLAIN = [token for token in range(len(TOKENIZER)) if token not in TAGS]
TEXTS = st.lists(st.sampled_from(PLAIN), min_size=1, max_size=5)
SOUP = st.lists(st.sampled_from(TAGS) | st.sampled_from(PLAIN), max_size=30)


def ids(text):
    return [TOKENIZER.get_vocab()[word] for word in text.split()]


def messages_in(sequence):
    """The messages of a well-formed block at the end of a sequence, by string methods; None where there is none."""
    spawn, sep, end = map(chr, (DIALECT.spawn, DIALECT.sep, DIALECT.spawn_end))
    text = "".join(map(chr, sequence))
    if not text.endswith(end):
        return None
    newest = text[:-1].rpartition(end)[2]  # an earlier block is closed and done
    if newest.count(spawn) != 1:
        return None
    messages = newest.partition(spawn)[2].split(sep)
    return [list(map(ord, message)) for message in messages] if all(messages) else None


def stopped(sequence):
    at = "stop" if sequence else "eos"
    return ThreadView(depth=0, ids=sequence, sampled=sequence, sampled_before_join=0, joins=0, stopped_at=at)


def headers(fork):
    return [insert.ids for child in fork.children for insert in child.header]


def check(sequence):
    """Whether the sequence ended in a fork, having checked that all that can be read of it is well-formed."""
    wanted = messages_in(sequence)
    action = DIALECT.step(stopped(sequence))
    forked = bool(sequence) and sequence[-1] == DIALECT.spawn_end
    assert isinstance(action, StartFork if wanted else Reject if forked else Finish)
    if wanted is not None:
        assert [list(header) for header in headers(action)] == [[DIALECT.thread, *m] for m in wanted]
    result = DIALECT.read_result(sequence)
    after = "".join(map(chr, sequence)).rpartition(chr(DIALECT.result))
    assert (result is None) == (not after[1])
    if result is not None:
        assert "".join(map(chr, result)) == after[2].removesuffix(chr(DIALECT.thread_end))
    join = DIALECT.write_join([result, None, sequence])
    none = [DIALECT.none]
    first = none if result is None else result
    assert join == [DIALECT.join_start, *first, DIALECT.sep, *none, DIALECT.sep, *sequence, DIALECT.join_end]
    return wanted is not None


def test_no_sequence_of_tokens_raises_or_is_misread():
    rng = random.Random(0)
    some = [*TAGS, *PLAIN[:4]]
    sequences = ([rng.choice(some) for _ in range(rng.randrange(25))] for _ in range(4_000))
    assert sum(map(check, sequences)) > 40
    blocks = ([*rng.choices(some, k=rng.randrange(9)), DIALECT.spawn_end] for _ in range(4_000))
    assert sum(map(check, blocks)) > 400


@given(SOUP)
def test_no_sequence_of_the_whole_vocabulary_raises_or_is_misread(sequence):
    check(sequence)
    check([*sequence, DIALECT.spawn_end])


@given(SOUP.filter(lambda soup: not {DIALECT.spawn} & set(soup)), st.lists(TEXTS, min_size=1, max_size=6))
def test_messages_written_into_a_block_are_the_childrens_headers(before, messages):
    block = [token for message in messages for token in (DIALECT.sep, *message)]
    fork = DIALECT.step(stopped([*before, DIALECT.spawn, *block[1:], DIALECT.spawn_end]))
    assert headers(fork) == [(DIALECT.thread, *message) for message in messages]


@given(SOUP, st.lists(st.sampled_from(PLAIN)), st.booleans())
def test_a_child_returns_what_follows_its_last_return(before, result, closed):
    written = [*before, DIALECT.result, *result, *[DIALECT.thread_end] * closed]
    assert DIALECT.read_result(written) == result


@given(st.lists(st.none() | TEXTS, min_size=1, max_size=6))
def test_results_written_into_a_join_can_be_separated_again(results):
    first, *inside, last = DIALECT.write_join(results)
    assert (first, last) == (DIALECT.join_start, DIALECT.join_end)
    parts = [[]]
    for token in inside:
        if token == DIALECT.sep:
            parts.append([])
        else:
            parts[-1].append(token)
    assert [None if part == [DIALECT.none] else part for part in parts] == results


@pytest.mark.parametrize(
    "text",
    [
        "</spawn>",
        "1 </spawn>",
        "<spawn> </spawn>",
        "<spawn> <sep> 1 </spawn>",
        "<spawn> 1 <sep> </spawn>",
        "<spawn> 1 <sep> <sep> 2 </spawn>",
        "<spawn> 1 <sep> <spawn> 2 </spawn>",
        "<spawn> <spawn> 1 </spawn>",
        "<spawn> 1 </spawn> 2 </spawn>",  # the second closes a block that has already run
        "<spawn> 1 </spawn> </spawn>",
    ],
)
def test_a_malformed_block_is_rejected_with_a_reason(text):
    action = DIALECT.step(stopped(ids(text)))
    assert isinstance(action, Reject)
    assert action.reason


def test_a_second_fork_and_one_after_a_malformed_block_are_read():
    for text in ("<spawn> 1 <sep> 2 </spawn> 3 <spawn> 4 </spawn>", "<spawn> </spawn> 3 <spawn> 4 </spawn>"):
        assert headers(DIALECT.step(stopped(ids(text)))) == [tuple(ids("<thread> 4"))]


def test_only_a_child_stops_at_the_end_of_a_thread():
    assert DIALECT.stops(0).ids == {DIALECT.spawn_end}
    assert DIALECT.stops(1) == DIALECT.stops(7)
    assert DIALECT.stops(1).ids == {DIALECT.spawn_end, DIALECT.thread_end}
    actions = [DIALECT.step(stopped(ids(text))) for text in ("<spawn> 1 </spawn>", "</spawn> 1", "</thread>")]
    assert [isinstance(action, StartFork) for action in actions] == [True, False, False]


@pytest.mark.parametrize("present", [[], ["<spawn>", "<sep>"], [*SpawnJoin.tags.values()][1:]])
def test_a_vocabulary_without_the_tags_is_refused_by_their_names(present):
    words = {word: number for number, word in enumerate(["a", *present])}
    poor = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")))
    with pytest.raises(ModelError) as error:
        bind("spawn_join", poor)
    named = {tag for tag in SpawnJoin.tags.values() if f" {tag}," in str(error.value) or f" {tag}:" in str(error.value)}
    assert named == set(SpawnJoin.tags.values()) - set(present)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("telepathy", {}, "'telepathy'"),
        ("", {}, "''"),
        ("spawn_join", {"colour": "red"}, "'colour'"),
        ("spawn_join", {"prefix": "none"}, "'prefix'='none'"),
        ("spawn_join", {"prefix": None}, "'prefix'=None"),
        ("spawn_join", {"join_on": "last"}, "'join_on'='last'"),
        ("spawn_join", {"spawn": 5}, "'spawn'"),
    ],
)
def test_an_unknown_dialect_option_or_value_is_refused_by_name(name, options, named):
    with pytest.raises(InputError) as error:
        bind(name, TOKENIZER, **options)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("header", "sampled", "ended"), [((), [], "lost"), ((Insert(()),), [], "limit"), ((), [], "eos"), ((), [], "stop")]
)
def test_a_child_without_a_header_that_sampled_nothing_has_no_result(header, sampled, ended):
    child = ChildResult(header, sampled, sampled, ran=False, ended=ended)
    assert not DIALECT.returns(child)
    join = DIALECT.join(stopped([]), [child])
    assert [insert.ids for insert in join.inserts] == [(DIALECT.join_start, DIALECT.none, DIALECT.join_end)]


def test_options_say_what_children_see_and_when_the_parent_goes_on():
    assert options_of(DIALECT) == {"prefix": "shared", "join_on": "all"}
    assert (DIALECT.shares_prefix, DIALECT.joins_on_first) == (True, False)
    other = bind("spawn_join", TOKENIZER, prefix="message", join_on="first")
    assert (other.shares_prefix, other.joins_on_first) == (False, True)
    assert options_of(other) == {"prefix": "message", "join_on": "first"}
