"""Options of vLLM that are refused by name, before an engine starts."""

import pytest

from parallel_reason import InputError, ParallelLLM


@pytest.mark.parametrize("options", [{"enable_dbo": True}, {"ubatch_size": 2}])
@pytest.mark.parametrize("dialect", ["spawn_join", "multiverse"])
def test_batches_that_are_split_in_two_are_refused(soup_model, dialect, options):
    with pytest.raises(InputError, match=r"split in two.*leave out enable_dbo and ubatch_size"):
        ParallelLLM(soup_model, dialect=dialect, engine="vllm", **options)
