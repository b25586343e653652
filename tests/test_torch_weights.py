"""New weights for the torch engine."""

import copy

import pytest
import torch

from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.errors import EngineError, ModelError
from tests.house import House, ask
from tests.letters import build_endless, words


def test_new_weights_are_those_of_their_folder_and_are_refused_while_kv_is_held(tmp_path):
    folder = build_endless("Llama", tmp_path / "old")
    house = House(folder, TorchEngine.start(folder))
    changed = copy.deepcopy(house.plain)
    with torch.no_grad():
        changed.get_input_embeddings().weight.mul_(1.5)
    changed.save_pretrained(tmp_path / "new")
    house.engine.tokenizer.save_pretrained(tmp_path / "new")
    new = str(tmp_path / "new")
    before = house.run(house.engine.generate(ask("before", words(1, 9), 20, keep_kv=True)))
    with pytest.raises(EngineError, match="between traces only"):
        house.run(house.engine.update_weights(new))
    before.kv.release()
    house.check(words(1, 9), before)
    house.run(house.engine.update_weights(new))
    house.plain = changed
    after = house.run(house.engine.generate(ask("after", words(1, 9), 20)))
    house.check(words(1, 9), after)
    assert (set(before.policy_versions), set(after.policy_versions)) == ({0}, {1})
    with pytest.raises(ModelError, match="no model"):
        house.run(house.engine.update_weights("/no/model"))
    house.close()


def test_weights_of_another_shape_are_refused_and_the_old_ones_stay(tmp_path):
    folder, wider = (build_endless(name, tmp_path / name) for name in ("Llama", "Qwen3"))
    house = House(folder, TorchEngine.start(folder))
    with pytest.raises(ModelError, match="has other weights than"):
        house.run(house.engine.update_weights(wider))
    house.check(words(1, 9), house.run(house.engine.generate(ask("after", words(1, 9), 20))))
    house.close()
