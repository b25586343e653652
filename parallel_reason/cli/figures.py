"""The figures of a run, and what two runs differ in, as tables for people."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parallel_reason.cli.console import one_line

if TYPE_CHECKING:
    from parallel_reason.evaluation import Comparison, Figures, Plan, RunSettings
    from parallel_reason.evaluation.compare import Ratio
    from parallel_reason.evaluation.figures import Share, Tokens
    from parallel_reason.llm import ParallelLLM


def print_plan(console: Console, plan: "Plan", llm: "ParallelLLM", out: Path) -> None:
    """What will be run, before it runs; and where what was not given comes from."""
    sampling = {name: value for name, value in plan.sampling.given().items() if name != "n"}
    limits = plan.limits
    bounds = {name: value for name, value in limits if value != type(limits).model_fields[name].default}
    last = plan.first_problem + len(plan.problems) - 1
    rows = {
        "task": f"{plan.task.name}, problems {plan.first_problem} to {last}, {plan.sampling.n} samples of each",
        "model": f"{llm.engine.model} on {llm.engine.name}, dialect {llm.dialect.name}",
        "strategy": (plan.strategy or "") + (f", budget {plan.budget.model_dump_json()}" if plan.budget else ""),
        "prompt": plan.prompt or "the problem alone",
        "sampling": _fields({"temperature": 0.0, **sampling}),
        "limits": _fields({"tokens_per_thread": limits.tokens_per_thread, **bounds}),
        "folder": str(out),
    }
    if plan.published:
        rows["defaults"] = plan.published.source
    if plan.twice:
        rows["note"] = f"{plan.twice} problems are in the set twice, and count once"
    for name, value in ((name, value) for name, value in rows.items() if value):
        console.print(Text.assemble((f"{name:11}", "bright_black"), one_line(value)))


def figures_table(found: "Figures") -> Table:
    """All figures of a run."""
    table = Table("", "", "95% interval", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
    for name, value, more in figure_rows(found):
        table.add_row(name, value, more)
    return table


def figure_rows(found: "Figures") -> list[tuple[str, str, str]]:
    """Name, value, and what is to be known of it, of every figure."""
    rows = [_share(f"accuracy, avg@{found.k}", found.accuracy)]
    if found.k > 1:
        rows += [(f"pass@{k}", f"{value:.1%}", "") for k, value in found.pass_at.items() if k > 1]
        rows += [(f"cons@{k}", f"{value:.1%}", "") for k, value in found.cons_at.items() if k > 1]
    rows += [
        _share("well formed, with an answer", found.well_formed),
        _share("with a fork", found.forked),
        _share("with a malformed fork", found.malformed),
        _share("failed", found.failed),
        _tokens("critical path, tokens", found.critical_path_tokens),
        _tokens("sampled tokens", found.sampled_tokens),
        _tokens("threads", found.threads),
        _tokens("longest context, tokens", found.longest_context),
        ("prefilled tokens", _known(found.prefilled_tokens), f"{_known(found.recomputed_tokens)} of them again"),
        ("from the prefix cache", "unknown" if found.cached_share is None else f"{found.cached_share:.1%}", ""),
        ("acceleration, of sums", f"{found.acceleration_of_sums:.2f}", f"mean of traces {found.mean_acceleration:.2f}"),
        ("seconds of a trace", f"{found.wall_s:.2f}", "" if found.busy_s is None else f"{found.busy_s:.1f} s in all"),
    ]
    if found.tokens_per_s is not None:
        rows.append(("tokens per second", f"{found.tokens_per_s:,.0f}", ""))
    if found.flops:
        flops = found.flops
        whole, parts = flops.prefill + flops.decode, f"prefill {flops.prefill:.1e}, decode {flops.decode:.1e}"
        rows.append(("FLOPs of a trace", f"{whole:.2e}", parts))
        rows.append(("saved by sharing", f"{flops.saved:.1%}", f"of {flops.unshared_prefill + flops.decode:.2e} FLOPs"))
    return rows


def comparison_table(found: "Comparison", names: tuple[str, str]) -> Table:
    """What two runs differ in."""
    table = Table("", *names, "second - first", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_row(
        "accuracy",
        f"{found.first:.1%}",
        f"{found.second:.1%}",
        f"{100 * found.difference:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]",
    )
    table.add_row("problems on which better", str(found.first_only), str(found.second_only), "")
    table.add_section()
    for name, ratio in (
        ("critical path", found.critical_path), ("sampled tokens", found.sampled_tokens), ("wall-clock", found.wall_s)
    ):  # fmt: skip
        table.add_row(name, "1", f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]", _slower(ratio))
    return table


def verdict_of(found: "Comparison") -> str:
    """Whether the difference of accuracies is noise, and what would tell, in words."""
    p = f"p = {found.p_value:.2g}, {found.test}"
    if not found.noise:
        return f"The difference is not noise: so large a one over {found.problems} problems is no chance ({p})."
    said = f"The difference may be noise: chance makes such a one over {found.problems} problems ({p})."
    if found.problems_to_settle is None:
        return f"{said} No difference was seen that more samples could settle."
    said += f" Were it real, {found.problems_to_settle:,} problems would show it in four runs of five"
    if found.samples_to_settle is not None:
        return f"{said}, or {found.samples_to_settle:,} samples of each of these."
    return f"{said}; more samples of these problems alone are not known to."


def settings_line(settings: "RunSettings") -> str:
    """A run in one line."""
    return one_line(
        f"{settings.task}, {Path(settings.model).name} on {settings.engine}, dialect {settings.dialect}"
        + (f", {settings.strategy}" if settings.strategy else "")
        + f", {settings.problems} problems x {settings.sampling.n}"
    )


def _fields(values: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _share(name: str, share: "Share") -> tuple[str, str, str]:
    more = f"[{share.low:.1%}, {share.high:.1%}]  {share.hits} of {share.samples}"
    if share.sampling_error:
        more += f", of sampling ±{1.96 * share.sampling_error:.1%}"
    return name, f"{share.value:.1%}", more


def _tokens(name: str, count: "Tokens") -> tuple[str, str, str]:
    return name, f"{count.mean:,.1f}", f"largest {count.largest:,}"


def _known(count: float | None) -> str:
    return "unknown" if count is None else f"{count:,.1f}"


def _slower(ratio: "Ratio") -> str:
    return f"more on {ratio.worse:.1%} of problems"
