"""Exports, read back by the tools of each format where they are installed."""

import csv
import json
import os
from collections import Counter

import pytest

from parallel_reason.trace import aggregate
from tests.viewing import DIALECTS, drawn, nasty, write

FORMATS = ["perfetto", "atif", "otel", "inspect", "table"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The traces of all dialects, and their file."""
    traces = [trace for dialect in DIALECTS for trace in drawn(dialect)]
    return traces, write(tmp_path_factory.mktemp("run") / "all.jsonl", traces)


@pytest.fixture
def exported(everything, command, tmp_path):
    def run(name, suffix="json"):
        out = tmp_path / f"out.{suffix}"
        done = command("export", everything[1], "--to", name, "--out", out)
        assert done.returncode == 0, done.stderr
        return everything[0], out

    return run


def test_perfetto_has_a_track_a_thread_and_arrows_that_bind_to_its_slices(exported):
    traces, out = exported("perfetto")
    events = json.loads(out.read_text())["traceEvents"]
    names = [event for event in events if event["ph"] == "M" and event["name"] == "thread_name"]
    assert len(names) == len({(event["pid"], event["tid"]) for event in names}) == sum(len(t.threads) for t in traces)
    lives = {(event["pid"], event["tid"]): event for event in events if event.get("cat") == "thread"}
    phases = [event for event in events if event.get("cat") in ("decoding", "queued", "waiting")]
    for event in phases:
        life = lives[event["pid"], event["tid"]]
        assert life["ts"] - 0.01 <= event["ts"]
        assert event["ts"] + event["dur"] <= life["ts"] + life["dur"] + 0.01
    decoded = [event["args"] for event in phases if event["cat"] == "decoding"]
    for number, trace in enumerate(traces, 1):
        own = [
            e["args"] for e in phases if e["pid"] == number and e["cat"] == "decoding" and e["args"]["critical_path"]
        ]
        assert sum(one["tokens"] for one in own) <= trace.ledger.critical_path_tokens
    assert sum(one["tokens"] for one in decoded) <= sum(trace.ledger.sampled_tokens for trace in traces)
    flows = Counter((event["pid"], event["id"], event["ph"]) for event in events if event["ph"] in "sf")
    assert set(flows.values()) == {1}
    for event in (event for event in events if event["ph"] in "sf"):  # Perfetto draws arrows between slices only
        life = lives[event["pid"], event["tid"]]
        assert life["ts"] - 0.01 <= event["ts"] <= life["ts"] + life["dur"] + 0.01
        assert (event["pid"], event["id"], "f" if event["ph"] == "s" else "s") in flows
    children = sum(
        2 if fork.waited else 1 for t in traces for th in t.threads for fork in th.forks for _ in fork.children
    )
    assert len(flows) == 2 * children


def test_atif_is_read_by_harbor(exported):
    trajectories = pytest.importorskip("harbor.models.trajectories")
    traces, out = exported("atif", "jsonl")
    read = [trajectories.Trajectory.model_validate_json(line) for line in out.read_text().splitlines()]
    assert len(read) == len(traces)
    for trace, one in zip(traces, read, strict=True):
        parts = [one, *(one.subagent_trajectories or [])]
        assert [part.extra["label"] for part in parts] == [thread.label for thread in trace.threads]
        ids = [step.metrics.completion_token_ids for part in parts for step in part.steps if step.metrics]
        assert sum(map(len, ids)) == trace.ledger.sampled_tokens == one.final_metrics.total_completion_tokens
        told = [
            reference.trajectory_id
            for part in parts for step in part.steps if step.observation
            for result in step.observation.results for reference in result.subagent_trajectory_ref
        ]  # fmt: skip
        assert sorted(told) == sorted(part.trajectory_id for part in parts[1:])


def test_atif_has_its_form_without_harbor(exported):
    traces, out = exported("atif", "jsonl")
    for trace, line in zip(traces, out.read_text().splitlines(), strict=True):
        one = json.loads(line)
        assert one["schema_version"] == "ATIF-v1.7"
        for part in [one, *one.get("subagent_trajectories", [])]:
            assert [step["step_id"] for step in part["steps"]] == list(range(1, len(part["steps"]) + 1))
            assert {step["source"] for step in part["steps"]} <= {"user", "agent", "system"}
        assert one["extra"]["answer"] == trace.answer


def test_otel_is_read_by_the_protocol_and_uses_names_of_the_conventions(exported):
    json_format = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI") and isinstance(value, str)}
    traces, out = exported("otel", "jsonl")
    for trace, line in zip(traces, out.read_text().splitlines(), strict=True):
        message = json_format.Parse(line, service.ExportTraceServiceRequest())
        spans = list(message.resource_spans[0].scope_spans[0].spans)
        by_id = {span.span_id: span for span in spans}
        assert len(by_id) == len(spans)
        threads = {
            value(span, "parallel_reason.thread"): span for span in spans if value(span, "parallel_reason.thread")
        }
        assert set(threads) == {thread.label for thread in trace.threads}
        for span in spans:
            names = {one.key for one in span.attributes}
            assert {name for name in names if name.startswith("gen_ai.")} <= known
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            assert (span.parent_span_id in by_id) == (span is not spans[0])
        for thread in trace.threads[1:]:
            assert by_id[threads[thread.label].parent_span_id] == threads[trace.threads[thread.parent].label]
        joins = [span for span in spans if span.name == "join"]
        waited = [fork for thread in trace.threads for fork in thread.forks if fork.waited]
        linked = sorted(link.span_id for span in joins for link in span.links)
        assert linked == sorted(threads[trace.threads[c].label].span_id for fork in waited for c in fork.children)


def value(span, key):
    found = [one.value for one in span.attributes if one.key == key]
    return getattr(found[0], found[0].WhichOneof("value")) if found else None


def test_the_inspect_log_is_read_by_inspect(exported):
    log = pytest.importorskip("inspect_ai.log")
    traces, out = exported("inspect")
    read = log.read_eval_log(str(out))
    assert read.status == "success"
    assert len(read.samples) == len({sample.id for sample in read.samples}) == len(traces)
    for trace, sample in zip(traces, read.samples, strict=True):
        begins = {event.id: event for event in sample.events if event.event == "span_begin"}
        assert sorted(event.name for event in begins.values()) == sorted(f"thread {t.label}" for t in trace.threads)
        open_spans = set()
        for event in sample.events:  # a thread begins after its parent, and nothing happens in one that is not open
            if event.event == "span_begin":
                assert event.parent_id is None or event.parent_id in open_spans
                open_spans.add(event.id)
            elif event.event == "span_end":
                open_spans.remove(event.id)
            else:
                assert event.span_id in open_spans
        assert not open_spans


def test_the_inspect_log_without_inspect_has_every_thread_once(exported):
    traces, out = exported("inspect")
    samples = json.loads(out.read_text())["samples"]
    for trace, sample in zip(traces, samples, strict=True):
        kinds = Counter(event["event"] for event in sample["events"])
        assert kinds["span_begin"] == kinds["span_end"] == len(trace.threads)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_are_read_by_pandas_with_the_ledgers_counts(exported, suffix):
    pandas = pytest.importorskip("pandas")
    traces, out = exported("table", suffix)
    read = pandas.read_csv if suffix == "csv" else pandas.read_parquet
    rows, threads = read(out), read(out.with_suffix(f".threads.{suffix}"))
    whole = aggregate(trace.ledger for trace in traces)
    assert list(rows.trace) == [trace.id for trace in traces]
    assert rows.sampled_tokens.sum() == threads.sampled_tokens.sum() == whole.sampled_tokens
    assert rows.critical_path_tokens.sum() == whole.critical_path_tokens
    assert list(threads.groupby("trace", sort=False).size()) == [len(trace.threads) for trace in traces]


@pytest.mark.parametrize("name", FORMATS)
def test_texts_that_are_hard_to_write_come_through(command, tmp_path, name):
    """Markup, marks of direction, NUL, a lone surrogate; and log-probs that JSON has no number for."""
    run = write(tmp_path / "run.jsonl", [nasty(), nasty("é\ud800".encode("utf-8", "backslashreplace").decode())])
    out = tmp_path / ("out.csv" if name == "table" else "out.json")
    done = command("export", run, "--to", name, "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    if name == "table":
        assert next(csv.DictReader(text.splitlines(keepends=True)))["answer"] == nasty().answer
    else:
        for line in [text] if name in ("perfetto", "inspect") else text.splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_place_that_cannot_be_written_and_a_wrong_kind_of_table_are_one_line(everything, command, tmp_path):
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path / "file" / "out.json", "cannot write"),
        (tmp_path / "out.xls", "a .csv or a .parquet file"),
    ):
        name = "table" if out.suffix == ".xls" else "otel"
        done = command("export", everything[1], "--to", name, "--out", out)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert said in done.stderr
        assert not out.exists()
    assert os.listdir(tmp_path) == ["file"]
