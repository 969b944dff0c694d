"""What a drill writes down for others: the runbook, the Chaos Toolkit journal, the report."""

import json
import os
import re
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chaoslib.experiment import ensure_experiment_is_valid

from greenops_pipelines import wiring
from greenops_pipelines.recovery.filing import Filed, record
from greenops_pipelines.recovery.journal import journal
from greenops_pipelines.recovery.results import Result
from greenops_pipelines.recovery.runbook import runbook
from greenops_pipelines.report.recovery import completeness, write_report
from tests.recovery.small_drills import EU, US, home, run, spec


@pytest.fixture(autouse=True)
def _greenops_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    # The toolkit wants to find the program that an activity names.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """One drill that failed over and back, with its folder."""
    folder = tmp_path_factory.mktemp("drilled")
    return folder, run(folder, spec("kill"))


def test_every_command_of_the_runbook_is_one_that_ran(drilled: tuple[Path, Result]) -> None:
    folder, result = drilled
    text = runbook(result, folder)
    blocks = re.findall(r"## \d+\. .*?\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    shown = [
        line
        for block in blocks
        for code in re.findall(r"```\n(.*?)```", block, re.DOTALL)
        for line in code.splitlines()
    ]
    assert len(shown) == len(result.commands) > 10
    events = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    logged = [command["command"] for event in events if event["event"] == "end" for command in event["commands"]]
    assert [command["command"] for command in result.commands] == logged
    for line, command in zip(shown, logged, strict=True):
        words = shlex.split(line, comments=True)
        if command.startswith("#"):
            assert words == []
            continue
        ran = shlex.split(command)
        assert words[0] == ran[0]
        if words[0] == "kill":
            assert words[1:] == [ran[1], "$PIDS"]
        else:
            back = [w.replace("$US_EAST_1", str(folder / US)).replace("$EU_CENTRAL_1", str(folder / EU)) for w in words]
            assert back == ran
    # No folder of this machine, and no password.
    assert str(folder) not in text
    assert "password=" not in text


def test_runbook_has_the_steps_in_order_with_their_measured_times(drilled: tuple[Path, Result]) -> None:
    folder, result = drilled
    heads = re.findall(r"^## (\d+)\. (.+) \(([\d.]+) s\)$", runbook(result, folder), re.MULTILINE)
    assert [int(number) for number, *_ in heads] == list(range(1, len(result.steps) + 1))
    assert [float(seconds) for *_, seconds in heads] == [round(step["seconds"], 2) for step in result.steps]
    titles = [title for _, title, _ in heads]
    assert titles.index("Fence the old primary") < titles.index("Promote the standby") < titles.index("Route clients")


def test_runbook_of_a_drill_that_failed_says_where(drilled: tuple[Path, Result]) -> None:
    _, result = drilled
    steps = (*result.steps[:9], {"step": "promote", "seconds": 60.0, "outcome": "PermanentError: promotion failed"})
    failed = replace(
        result, verdict="failed", rpo_s=None, lost_writes=None, steps=steps, deficiencies=("promotion failed",)
    )
    text = runbook(failed)
    assert "In this drill it ended with: PermanentError: promotion failed" in text
    assert "| recovery point (acknowledged writes lost) | not measured, unknown writes |" in text
    assert "## Deficiencies\n\n- promotion failed" in text


def test_journal_holds_an_experiment_that_the_chaos_toolkit_takes(drilled: tuple[Path, Result]) -> None:
    folder, result = drilled
    document = json.loads(json.dumps(journal(result, folder / "events.jsonl")))
    ensure_experiment_is_valid(document["experiment"])
    assert (document["status"], document["deviated"]) == ("completed", False)
    assert document["steady_states"]["before"]["steady_state_met"] is True
    assert [each["activity"]["name"] for each in document["run"]] == [
        "refuse", "set-up", "fault", "detect", "fence", "promote", "route", "first-write", "verify",
    ]  # fmt: skip
    assert [each["activity"]["name"] for each in document["rollbacks"]][:2] == ["rewind", "catch-up"]
    starts = [datetime.fromisoformat(each["start"]) for each in document["run"]]
    assert starts == sorted(starts)
    promote = next(step for step in result.steps if step["step"] == "promote")
    [told] = [each for each in document["run"] if each["activity"]["name"] == "promote"]
    assert told["duration"] == promote["seconds"]
    [command] = told["output"]["commands"]
    assert shlex.split(command)[2:] == ["--command", "select pg_promote(wait => true, wait_seconds => 60)"]


def test_journal_of_an_aborted_drill_deviates(drilled: tuple[Path, Result]) -> None:
    folder, result = drilled
    steps = (*result.steps[:8], {"step": "promote", "seconds": None, "outcome": "was under way when the drill ended"})
    document = journal(replace(result, verdict="aborted", steps=steps), folder / "events.jsonl")
    ensure_experiment_is_valid(json.loads(json.dumps(document["experiment"])))
    assert (document["status"], document["deviated"]) == ("aborted", True)
    assert document["run"][-1]["status"] == "failed"


def test_report_lists_good_and_bad_drills_and_a_month_that_was_missed(
    drilled: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = home(tmp_path, monkeypatch)
    lake, declared = wiring.lake(settings), wiring.gamedays(settings)
    _, plain = drilled
    aborted = replace(plain, drill="20260601T000000Z-0000000a", gameday="2026-06", verdict="aborted", deficiencies=("killed & <gone>",),
                      rto_s=None, rpo_s=None, lost_writes=None, began_at="2026-06-02T09:00:00.000Z")  # fmt: skip
    good = replace(plain, drill="20260505T090000Z-0000000b", gameday="2026-05", began_at="2026-05-05T09:00:00.000Z")
    control = replace(plain, drill="20260505T090500Z-0000000c", gameday="2026-05", is_negative_control=True, verdict="missed as intended", rpo_s=12.05,
                      lost_writes=1205, began_at="2026-05-05T09:05:00.000Z")  # fmt: skip
    for result in (aborted, good, control):
        record(lake, Filed(result, "20260505T090000Z-" + "0" * 16, "filed"))
    made = write_report(lake, settings.reports, declared, datetime(2026, 6, 10, tzinfo=UTC))
    html = made.path.read_text(encoding="utf-8")
    assert made.figures == {"drills": 2, "negative controls": 1, "months missed": 1, "next GameDay": "2026-07-07"}
    months = re.search(r"<tbody><tr>(.*?)</tr></tbody>", html, re.DOTALL)
    assert months is not None
    assert re.findall(r'class="(\w+)">', months[1])[-2:] == ["within", "over"]
    assert "killed &amp; &lt;gone&gt;" in html
    assert "1,205" in html
    assert completeness(lake, settings.reports).measured == 0
    # A figure that was changed in the page is found.
    made.path.write_text(html.replace(f'data-rto="{good.rto_s}"', 'data-rto="0.1"'), encoding="utf-8")
    assert completeness(lake, settings.reports).measured == 1
