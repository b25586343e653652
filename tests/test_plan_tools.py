"""Tools of plans that raise, hang or do not let themselves be cancelled."""

import asyncio
import threading

import pytest

from benchmarks.plans import run_virtual
from parallel_reason import InputError
from parallel_reason.plans import Call, Plan, PlanLimits, run_plan


class Odd(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("not even a text")


def raising(error):
    def tool():
        raise error

    async def async_tool():
        raise error

    return [tool, async_tool]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), ("CancelledError", "it cancelled itself")),
        (StopIteration(1), ("StopIteration: 1", "RuntimeError: coroutine raised StopIteration")),
        (Odd(), "Odd"),
        (ValueError("x" * 10_000_000), "ValueError: " + "x" * 488),
    ],
)
def test_whatever_a_tool_raises_is_the_reason_of_its_call_alone(error, reason):
    async def run(tool):
        plan = Plan()
        lost = plan.call(tool)
        plan.call(str, lost)
        plan.call(str, "x")
        return await plan.run()

    for number, tool in enumerate(raising(error)):
        result = asyncio.run(run(tool))
        assert [each.status for each in result.outcomes.values()] == ["failed", "skipped", "finished"]
        expected = reason if isinstance(reason, str) else reason[number]
        assert result.outcomes["1"].reason == expected
        with pytest.raises(InputError, match="call 1 has no result; it failed: "):
            result["1"]


def test_an_exception_that_is_returned_has_failed():
    result = asyncio.run(run_plan([Call("1", lambda: ValueError("given back"))]))
    assert result.outcomes["1"].status == "failed"
    assert result.outcomes["1"].reason == "ValueError: given back"


def test_plain_code_that_hangs_is_left_behind_at_its_deadline():
    released = threading.Event()
    result = asyncio.run(run_plan([Call("1", released.wait, deadline_s=0.05), Call("2", str, (1,))]))
    assert result.outcomes["1"].reason == "deadline_s=0.05"
    assert result["2"] == "1"
    released.set()


def test_async_code_that_does_not_let_itself_be_cancelled_is_waited_for_no_longer_than_its_grace():
    async def stubborn():
        while True:
            try:
                await asyncio.sleep(100)
                return
            except asyncio.CancelledError:
                continue

    result = run_virtual(run_plan([Call("1", stubborn)], limits=PlanLimits(call_deadline_s=5)))
    assert result.outcomes["1"].reason == "deadline_s=5"
    assert result.wall_s == 6


def test_plain_functions_run_at_the_same_time():
    met = threading.Barrier(3)
    result = asyncio.run(run_plan([Call(str(k), met.wait, (10,)) for k in range(3)]))
    assert sorted(result.values.values()) == [0, 1, 2]
