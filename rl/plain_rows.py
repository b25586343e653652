"""Traces as plain rows, one a thread, for trainers that know causal attention only.

The prefix that threads share is repeated in each row, so this costs more than `rl.rows`; every sampled token is trained
once all the same. A graft cannot be written in this way, since its tokens do not see a causal text.
"""

from dataclasses import dataclass, field
from typing import Any

from parallel_reason import InputError, Trace, layout
from rl.rollouts import Rollout


@dataclass
class PlainRow:
    """A text under causal attention, at positions 0, 1, 2 and so on.

    Attributes:
        label: of the thread whose tokens are trained.
        ids: [tokens].
        trained: which of them, [tokens].
        logprobs: of those that are trained, as the engine gave them; 0 elsewhere, [tokens].
        versions: of the policies that sampled them.
    """

    label: str
    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)

    @property
    def prompt_length(self) -> int:
        """How many tokens come before the first that is trained."""
        return self.trained.index(True)


def plain_rows(trace: Trace) -> list[PlainRow]:
    """The rows of a trace, in the order of its threads; threads that sampled nothing have none.

    A thread has one row, or more where it took tokens back: then what it wrote before and after are two texts.

    Raises:
        InputError: a fork joins by graft.
    """
    if any(fork.join_rule == "graft" for thread in trace.threads for fork in thread.forks):
        raise InputError(f"dialect {trace.dialect!r} joins by graft, which rows of causal text cannot show")
    whole = layout(trace)
    seen: list[list[int]] = [[] for _ in trace.threads]
    rows: list[list[PlainRow]] = [[] for _ in trace.threads]
    for segment in whole.segments:
        places = [place for start, stop in segment.visible for place in range(start, stop)]
        own = range(segment.start, segment.stop)
        of_thread, before = rows[segment.thread], seen[segment.thread]
        if not of_thread or before != places[: len(before)]:
            of_thread.append(PlainRow(trace.threads[segment.thread].label))
            before = []
        row = of_thread[-1]
        for place in (*places[len(before) :], *own):
            trained = place in own and bool(whole.sampled[place])
            row.ids.append(int(whole.ids[place]))
            row.trained.append(trained)
            row.logprobs.append(float(whole.logprobs[place]) if trained else 0.0)
            if trained:
                row.versions.add(int(whole.policy_versions[place]))
        seen[segment.thread] = [*places, *own]
    return [row for of_thread in rows for row in of_thread if any(row.trained)]


def verl_outputs(rollout: Rollout) -> list[dict[str, Any]]:
    """The fields of verl's ``AgentLoopOutput``, one for each row; the last one is the root's, whose reward counts."""
    rows = plain_rows(rollout.trace)
    return [
        {
            "prompt_ids": row.ids[: row.prompt_length],
            "response_ids": row.ids[row.prompt_length :],
            "response_mask": [int(trained) for trained in row.trained[row.prompt_length :]],
            "response_logprobs": row.logprobs[row.prompt_length :],
            "reward_score": rollout.reward,
            "num_turns": 1,
            "metrics": {"generate_sequences": rollout.trace.ledger.wall_s},
            "extra_fields": {"thread": row.label, "trace": rollout.trace.id, "reward_parts": rollout.parts},
        }
        for row in [*(r for r in rows if r.label != "0"), *(r for r in rows if r.label == "0")]
    ]


STATUS = {"finished": "completed", "length": "truncated", "cancelled": "aborted", "failed": "failed"}


def slime_samples(rollout: Rollout, group_index: int, index: int) -> list[dict[str, Any]]:
    """What ``Sample.from_dict`` of slime reads, one for each row; siblings share ``rollout_id`` in the metadata.

    Args:
        group_index: of the problem in its batch.
        index: of the rollout in its batch.
    """
    trace = rollout.trace
    return [
        {
            "group_index": group_index,
            "index": index,
            "prompt": trace.prompt,
            "tokens": row.ids,
            "response_length": len(row.ids) - row.prompt_length,
            "response": trace.thread(row.label).text,
            "loss_mask": [int(trained) for trained in row.trained[row.prompt_length :]],
            "rollout_log_probs": row.logprobs[row.prompt_length :],
            "weight_versions": [str(version) for version in sorted(row.versions)],
            "reward": rollout.reward,
            "status": STATUS[trace.thread(row.label).status],
            "metadata": {"rollout_id": trace.id, "thread": row.label, "reward_parts": rollout.parts},
        }
        for row in plain_rows(trace)
    ]
