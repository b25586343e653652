import pytest

from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.folder import check_model
from parallel_reason.errors import ModelError


@pytest.mark.parametrize("path", ["/no/model", "./model", "~/no/model", "model", "a/b/c"])
def test_a_path_where_nothing_lies_is_no_model(path):
    with pytest.raises(ModelError, match=f"^no model '{path}': give a folder"):
        check_model(path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"^no model in '.*': the folder has no config\.json$"):
        check_model(str(tmp_path))


def test_a_folder_with_one_and_a_hub_id_pass():
    check_model(str(EMBEDDED))
    check_model("Qwen/Qwen3-8B")
