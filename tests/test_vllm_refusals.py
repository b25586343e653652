"""Options of vLLM that are refused by name, before an engine starts."""

import asyncio

import pytest

from parallel_reason import InputError
from parallel_reason.engines import start


@pytest.mark.parametrize(
    ("graft", "options", "reason"),
    [
        (False, {"enable_dbo": True}, r"split in two.*leave out enable_dbo and ubatch_size"),
        (True, {"ubatch_size": 2}, r"split in two.*leave out enable_dbo and ubatch_size"),
        (True, {"tensor_parallel_size": 2}, r"cannot graft.*tensor parallelism is on.*use engine='torch'"),
    ],
)
def test_what_was_never_run_is_refused(soup_model, graft, options, reason):
    with pytest.raises(InputError, match=reason):
        asyncio.run(start("vllm", soup_model, graft=graft, **options))
