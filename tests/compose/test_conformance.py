"""`sigmagraph conform`: ours keep the laws, samplers with a known fault break the law of that fault."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from sigmagraph.engine.cli.app import main
from sigmagraph.engine.compose.conformance import MODELS, conformance
from sigmagraph.engine.errors import BadSampler, BadValue
from sigmagraph.engine.sampling import SOLVERS
from sigmagraph.engine.sampling.conformance.candidates import in_file
from sigmagraph.engine.sampling.conformance.laws import Candidate, Finding, replay

ROOT = Path(__file__).parents[2]
FAULTY = """
import torch

def sample_half_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i].expand(len(x)))) / sigmas[i]
        ahead = x + d * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            late = (ahead - model(ahead, sigmas[i + 1].expand(len(x)))) / sigmas[i + 1]
            ahead = x + (0.6 * d + 0.4 * late) * (sigmas[i + 1] - sigmas[i])
        x = ahead
    return x

sample_half_heun.order = 2

def sample_own_noise(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i].expand(len(x)))
        x = denoised + torch.randn_like(x) * sigmas[i + 1]
    return x

def sample_scaled(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i].expand(len(x)))
        x = denoised * 1.2 + (x - denoised) * (sigmas[i + 1] / sigmas[i])
    return x

def sample_in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i].expand(len(x))).clone()
        x.sub_(denoised).mul_(sigmas[i + 1] / sigmas[i]).add_(denoised)
    return x

def sample_ends_all(model, x, sigmas, extra_args=None, callback=None, disable=None):
    raise SystemExit(0)

def sample_needs_three(model, x, sigmas, extra_args=None, callback=None, disable=None):
    last = sigmas[2]
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i].expand(len(x)))
        x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
    return x - x.mean() * 1e-3 * (last == last)
"""

ENDLESS = """
def sample_endless(model, x, sigmas, extra_args=None, callback=None, disable=None):
    while True:
        x = model(x, sigmas[0].expand(len(x)))
"""


def verdicts(found: object, name: str) -> dict[str, str]:
    return {one.law: one.verdict for one in found.findings[name]}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("faulty") / "faulty_samplers.py"
    file.write_text(FAULTY)
    return file


def test_each_fault_breaks_its_law(faulty: Path) -> None:
    found = conformance(in_file(faulty))
    heun = {one.law: one for one in found.findings["half_heun"]}
    assert heun["order"].verdict == "broken"
    assert float(heun["order"].figure.split(",")[0]) == pytest.approx(1.0, abs=0.2)
    assert heun["evaluations"].figure == "2.00 a step"
    assert verdicts(found, "own_noise") | {"order": "", "exactness": "", "marginals": ""} == {
        "order": "", "exactness": "", "marginals": "", "replay": "broken", "batch independence": "broken",
        "extremes": "holds", "evaluations": "not asked",
    }  # fmt: skip
    assert verdicts(found, "scaled")["exactness"] == "broken"
    assert verdicts(found, "scaled")["marginals"] == "broken"
    three = {one.law: one for one in found.findings["needs_three"]}
    assert three["extremes"].verdict == "broken"
    assert "one step: IndexError" in three["extremes"].figure
    assert three["batch independence"].verdict == "broken"  # it takes a mean over the batch
    assert "broken" not in verdicts(found, "in_place").values()  # what it writes into is its own
    assert {one.figure for one in found.findings["ends_all"] if one.law != "extremes"} == {"SystemExit: 0"}


def test_a_sampler_without_an_end_is_stopped_and_one_that_ends_the_import_is_named(tmp_path: Path) -> None:
    endless, ending = tmp_path / "endless.py", tmp_path / "ending.py"
    endless.write_text(ENDLESS)
    ending.write_text("raise SystemExit(0)\n")
    with pytest.raises(BadSampler, match="endless asked 4800 times; expected an end, in 6 steps"):
        replay(Candidate("endless", in_file(endless)["endless"], MODELS["ve"]()))
    with pytest.raises(BadValue, match=r"ending.py.*ends the program"):
        in_file(ending)


@pytest.mark.parametrize("model", MODELS)
def test_ours_keep_every_law(model: str) -> None:
    found = conformance({name: SOLVERS[name] for name in ("euler", "dpmpp_2m_sde")}, model)
    assert found.broken == []
    assert verdicts(found, "dpmpp_2m_sde")["marginals"] == "holds"


def test_the_command_writes_its_report_and_ends_with_3_where_a_law_is_broken(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["conform", str(faulty), "--samplers", "scaled", "--json", "--output", str(tmp_path)])
    assert end.value.code == 3
    said = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in said["files"]] == ["conform.md", "conform.json", "conform.png"]
    assert {one["law"]: one["verdict"] for one in said["samplers"]["scaled"]["laws"]}["exactness"] == "broken"
    assert (tmp_path / "conform.md").read_text().startswith("| sampler | order | exactness |")
    assert (tmp_path / "conform.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nimport nothing_of_that_name\n", "line 2 raised ModuleNotFoundError: No module named 'nothing_of_that"),
        ("x = 1\n\ndef (\n", "line 3 raised SyntaxError"),
        ("def fail():\n    raise KeyError('a key')\n\nfail()\n", "line 2 raised KeyError: 'a key'"),
        ("import json\njson.loads('{')\n", "line 2 raised JSONDecodeError"),  # the last line of the file itself
    ],
)
def test_a_file_whose_import_fails_is_one_message_with_its_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing.py").write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["conform", str(tmp_path / "failing.py")])
    said = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 1
    assert words in said
    assert "failing.py" in said
    assert "Traceback" not in said


def test_a_file_without_a_sampler_says_what_one_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing_here.py").write_text("x = 1\n")
    with pytest.raises(SystemExit) as end:
        main(["conform", str(tmp_path / "nothing_here.py")])
    assert end.value.code == 1
    assert "sample_NAME(model, x, sigmas, ...)" in " ".join(capsys.readouterr().err.split())


KNOWN = {("flow_grpo", "extremes")}  # one or two Euler-Maruyama steps from pure noise add more than the process has


def held(rows: Iterable[str], findings: Mapping[str, Sequence[Finding]]) -> int:
    """How many rows of a table there are; each says what was found of its sampler."""
    marks, count = {"holds": "yes", "broken": "NO", "not asked": "-"}, 0
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        if name in findings:
            assert [cell.split(":")[0] for cell in cells] == [marks[one.verdict] for one in findings[name]], name
            count += 1
    return count


def table(marker: str) -> list[str]:
    """The rows of the table behind a marker in the documentation."""
    behind = (ROOT / "docs" / "conform.md").read_text().partition(f"<!-- {marker} -->")[2]
    return [line for line in behind.partition("\n## ")[0].splitlines() if line.startswith("| ")]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_all_of_ours_keep_every_law_but_those_known(model: str) -> None:
    found = conformance({name: one for name, one in SOLVERS.items() if not one.on_device}, model)
    broken = {(name, one.law) for name, every in found.findings.items() for one in every if one.verdict == "broken"}
    assert broken == KNOWN
    assert held(table("ours"), found.findings) == len(table("ours")) - 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["k_diffusion_samplers", "diffusers_schedulers"])
def test_the_tables_of_other_projects_in_the_documentation_are_what_is_found(peer: str) -> None:
    found = conformance(in_file(ROOT / "benchmarks" / "conform" / f"{peer}.py"))
    assert held(table(peer), found.findings) == len(found.findings)
