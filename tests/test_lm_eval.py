"""lm-evaluation-harness over our threads: its evaluator, its tasks, and its own Hugging Face model beside ours."""

import json
import math
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lm_eval")

from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import parallel_reason
from parallel_reason import InputError, SamplingParams, read_traces
from parallel_reason.integrations.lm_eval import ParallelReasonLM
from parallel_reason.integrations.settings import sampling_of_task
from parallel_reason.tasks.countdown import Problem, held_out, solves

EMBEDDED = Path(parallel_reason.__file__).parent / "models" / "countdown"
PROBLEMS = [str(problem) for problem in held_out(4)]
PROCESS = """
from parallel_reason.tasks.countdown import Problem, solves


def process(doc, results):
    return {"solved": solves(results[0], Problem.parse(doc["problem"]))}
"""


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory):
    """Two tasks of ours in the harness's own format: one that generates, one of multiple choice."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"problem": problem, "choices": ["=1", "-2", "+3"], "label": 0} for problem in PROBLEMS]
    (folder / "problems.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "countdown_check.py").write_text(PROCESS)
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "problems.json")}},
        "test_split": "test",
        "doc_to_text": "{{problem}}",
    }
    solve = data | {
        "task": "our_countdown",
        "output_type": "generate_until",
        "doc_to_target": "",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 500},
        "metric_list": [{"metric": "solved", "aggregation": "mean", "higher_is_better": True}],
    }
    text = yaml.safe_dump(solve) + "process_results: !function countdown_check.process\n"
    (folder / "our_countdown.yaml").write_text(text)
    choose = data | {
        "task": "our_choices",
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "our_choices.yaml").write_text(yaml.safe_dump(choose))
    return folder


@pytest.fixture(scope="module")
def tasks(task_folder):
    return TaskManager(include_path=str(task_folder), include_defaults=False)


@pytest.fixture(scope="module")
def model():
    lm = ParallelReasonLM(engine="torch", threads=8, batch_size=1, device=None)
    yield lm
    lm.llm.close()


@pytest.fixture(scope="module")
def theirs():
    return HFLM(pretrained=str(EMBEDDED), device="cpu", dtype="float32", batch_size=1)


def instances(kind, *args):
    return [Instance(kind, {}, each, number) for number, each in enumerate(args)]


def test_arguments_are_limits_or_the_engines(model):
    assert model.limits.threads == 8
    assert model.llm.engine.name == "torch"
    with pytest.raises(InputError, match="no_such"):
        ParallelReasonLM(engine="torch", no_such=1)


def test_their_evaluator_runs_their_task_on_threads(tasks, tmp_path):
    """``--model_args`` as a person writes them; the score is what the strict verifier gives the same traces."""
    traces = tmp_path / "traces.jsonl"
    results = evaluator.simple_evaluate(
        model="parallel_reason",
        model_args=f"engine=torch,dialect=spawn_join,threads=4,traces={traces}",
        tasks=["our_countdown"],
        task_manager=tasks,
        bootstrap_iters=0,
    )
    found = list(read_traces(traces))
    assert sorted(trace.prompt for trace in found) == sorted(PROBLEMS)
    assert all(len(trace.threads) > 1 for trace in found)
    assert {trace.limits.threads for trace in found} == {4}
    right = [solves(trace.answer, Problem.parse(trace.prompt)) for trace in found]
    assert results["results"]["our_countdown"]["solved,none"] == sum(right) / len(right)
    assert sum(right) > 0


def test_their_multiple_choice_task_scores_as_with_their_own_model(tasks, model, theirs):
    def accuracy(lm):
        results = evaluator.simple_evaluate(model=lm, tasks=["our_choices"], task_manager=tasks, bootstrap_iters=0)
        return results["results"]["our_choices"]["acc,none"]

    assert accuracy(model) == accuracy(theirs)


def test_log_likelihoods_and_greediness_are_those_of_their_own_model(model, theirs):
    [greedy] = model.llm.with_dialect("none").generate(PROBLEMS[0], SamplingParams(max_tokens=4))
    pairs = [(problem, text) for problem in PROBLEMS for text in ("=1", "-25+3", "=7")]
    pairs += [(PROBLEMS[0], greedy.text), (PROBLEMS[0], greedy.text[:-1]), ("", "22,26")]
    ours = model.loglikelihood(instances("loglikelihood", *pairs), disable_tqdm=True)
    expected = theirs.loglikelihood(instances("loglikelihood", *pairs), disable_tqdm=True)
    for (pair, (score, is_greedy)), (right, right_greedy) in zip(zip(pairs, ours, strict=True), expected, strict=True):
        assert math.isclose(score, right, abs_tol=1e-3), pair
        assert is_greedy == right_greedy, pair
    assert {is_greedy for _, is_greedy in ours} == {True, False}


def test_rolling_log_likelihoods_are_those_of_their_own_model(model, theirs):
    texts = [(PROBLEMS[0],), (",".join(PROBLEMS),)]
    ours = model.loglikelihood_rolling(instances("loglikelihood_rolling", *texts), disable_tqdm=True)
    expected = theirs.loglikelihood_rolling(instances("loglikelihood_rolling", *texts), disable_tqdm=True)
    for score, right in zip(ours, expected, strict=True):
        assert math.isclose(score, right, rel_tol=1e-4)


def test_answers_come_in_order_cut_at_their_stops_with_each_requests_own_settings(model):
    plain = {"until": [], "max_gen_toks": 400}
    cut = {"until": ["=", "-"], "max_gen_toks": 400}
    requests = [(problem, settings) for problem in PROBLEMS[:3] for settings in (plain, cut)]
    answers = model.generate_until(instances("generate_until", *requests), disable_tqdm=True)
    direct = model.llm.generate(PROBLEMS[:3])
    for number, trace in enumerate(direct):
        assert answers[2 * number] == (trace.text if trace.answer is None else trace.answer)
        assert not {"=", "-"} & set(answers[2 * number + 1])


def test_settings_of_tasks_become_ours_and_stops_are_of_the_root():
    sampling, until = sampling_of_task(
        {"until": "\n\n", "do_sample": True, "temperature": 0.7, "max_gen_toks": 9, "seed": 3}
    )
    assert until == ("\n\n",)
    assert (sampling.stop, sampling.of("0.1").stop) == (("\n\n",), ())
    assert sampling.of("0.1").temperature == sampling.temperature == 0.7
    assert sampling.of("0.1").max_tokens == 9
    assert sampling_of_task({"do_sample": False, "temperature": 0.7})[0].temperature == 0
    with pytest.raises(InputError, match="generation_kwargs has num_beams=4; known are do_sample, "):
        sampling_of_task({"num_beams": 4})


def test_a_continuation_that_the_tokenizer_merges_into_its_context_is_refused(model):
    """27 and 1 make the token 271, of which nothing is left to score."""
    with pytest.raises(InputError, match=r"no token is left of the continuation '1' of a context that ends '.*=27'"):
        model.loglikelihood(instances("loglikelihood", ("22,26,31,53=27", "1")), disable_tqdm=True)
