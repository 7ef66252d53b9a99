import json

from typer.testing import CliRunner

from sigmagraph.engine.cli.app import app
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS
from sigmagraph.engine.sampling.facts import every_fact


def test_facts_are_json_that_every_reader_takes() -> None:
    written = json.dumps(every_fact(), allow_nan=False)
    told = json.loads(written)["samplers"]
    assert told["dpmpp_2m"]["options"] == {}
    assert {name for name, facts in told.items() if "inf" in [one["default"] for one in facts["options"].values()]}


def test_samplers_lists_every_sampler_with_its_facts() -> None:
    done = CliRunner().invoke(app, ["samplers"])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(SOLVERS) <= set(lines)
    for fact in ("2", "none", "s_churn=0"):
        assert fact in lines["heun"]
    assert "Karras 2022" in CliRunner().invoke(app, ["samplers", "heun"]).stdout


def test_schedules_are_listed_on_request() -> None:
    done = CliRunner().invoke(app, ["samplers", "--schedules"])
    assert set(SCHEDULES) <= {line.split()[0] for line in done.stdout.splitlines()}


def test_one_sampler_is_shown_with_its_options_limits_and_revisions() -> None:
    shown = CliRunner().invoke(app, ["samplers", "euler_ancestral"]).stdout
    assert "euler_ancestral@2" in shown
    assert "float from 0 to 100" in shown
    assert "@1" in shown
    assert "euler_ancestral@1" in CliRunner().invoke(app, ["samplers", "euler_ancestral@1"]).stdout


def test_one_schedule_is_shown_too() -> None:
    shown = CliRunner().invoke(app, ["samplers", "karras"]).stdout
    assert "arXiv:2206.00364" in shown
    assert "rho" in shown


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["samplers", "eulr"])
    assert done.exit_code == 1
    assert "did you mean 'euler'" in done.stderr
