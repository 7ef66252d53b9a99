"""Python's face: its laws, what it says to wrong arguments, and that it makes what graphs make."""

import ast
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import sigmagraph as sg
from sigmagraph.engine import sampling
from sigmagraph.engine.errors import BadPrediction, BadSampler, BadSchedule, BadValue, MissingFile, UnknownName
from sigmagraph.engine.graph.lock import CHUNK, read_lock
from sigmagraph.engine.graph.reading.document import read_workflow
from sigmagraph.engine.graph.reading.image_metadata import carried_texts
from sigmagraph.nodes.support.pictures import read_picture
from tests.serving import CHECKOUT

WORKFLOW = CHECKOUT / "workflows/txt2img.json"
START = torch.zeros(2, 3, 8, 8)
LEVELS = sg.sigmas("karras", 10)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Exact for data of mean 0 and standard deviation 0.5."""
    return x * 0.25 / (0.25 + sigma**2)


def test_a_plain_function_is_a_denoiser_and_follows_the_known_path() -> None:
    final = sg.sample(gaussian, START, sg.sigmas("karras", 200), "heun", noise=3)
    first = LEVELS[0]
    noise = sampling.ComfyNoise(3).initial(START) * (1 + first**2) ** 0.5
    exact = noise * (0.25 / (0.25 + first**2)) ** 0.5  # x(sigma) is proportional to sqrt(0.25 + sigma^2)
    assert (final - exact).abs().max() < 2e-3


def test_it_is_the_cores_own_sampling() -> None:
    full = sg.sample(gaussian, START, torch.tensor(LEVELS), "dpmpp_2m", seed=5)
    levels = [float(torch.tensor(level)) for level in LEVELS]
    noise = sampling.ComfyNoise(5)
    core = sampling.Sampling(gaussian, START, levels, sampling.edm(0.002, 80.0), "dpmpp_2m", noise=noise).run()
    assert torch.equal(full, core)


def test_a_seed_a_noise_and_a_source_are_the_same() -> None:
    one, two, three = (
        sg.sample(gaussian, START, LEVELS, "euler_ancestral", **given)
        for given in ({"seed": 4}, {"noise": 4}, {"noise": sg.ComfyNoise(4)})
    )
    assert torch.equal(one, two)
    assert torch.equal(two, three)
    assert not torch.equal(one, sg.sample(gaussian, START, LEVELS, "euler_ancestral", seed=5))


def test_further_keywords_are_the_solvers_options() -> None:
    still = sg.sample(gaussian, START, LEVELS, "euler_ancestral", eta=0.0)
    assert torch.allclose(still, sg.sample(gaussian, START, LEVELS, "euler"), atol=1e-5)


def test_a_module_is_a_denoiser_and_a_mask_keeps_the_rest() -> None:
    class Halves(torch.nn.Module):
        def forward(self, x: Tensor, sigma: float) -> Tensor:
            return gaussian(x, sigma)

    mask, clean = torch.zeros(8, 8), torch.full((1, 3, 8, 8), 0.25)
    mask[:, 4:] = 1.0
    final = sg.sample(Halves(), clean, LEVELS, "euler", mask=mask)
    assert torch.allclose(final[..., :4], clean[..., :4], atol=1e-6)
    assert not torch.allclose(final[..., 4:], clean[..., 4:], atol=1e-2)


def test_a_guidance_answers_a_solver_that_needs_both_estimates() -> None:
    def predict(x: Tensor, sigma: float, conditionings: Any) -> list[Tensor]:
        return [gaussian(x, sigma) + centre for centre in conditionings]

    guided = sg.Cfg(predict, 0.5, 0.0, 1.0)
    final = sg.sample(guided, START, LEVELS, "euler_cfg_pp")
    assert torch.isfinite(final).all()
    assert final.mean() > sg.sample(sg.Cfg(predict, 0.0, 0.0, 1.0), START, LEVELS, "euler_cfg_pp").mean() + 0.3


def half_guided(x: Tensor, sigma: float, needs_uncond: bool = False) -> Tensor:
    """Says that it can give both estimates, and gives one."""
    return gaussian(x, sigma)


def one_argument(x: Tensor) -> Tensor:
    return x


def cfg_of(predict: Any, scale: Any = 3.0, **rules: Any) -> sg.Cfg:
    return sg.Cfg(predict, 1.0, 0.0, scale, **rules)


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: sg.sample(gaussian, START, cast(Any, "karas")), BadValue, r'sigmagraph.sigmas\("karras", 20\)'),
    (lambda: sg.sample(gaussian, START, [None]), BadValue, "a list of numbers"),  # type: ignore[list-item]
    (lambda: sg.sample(gaussian, START.long(), LEVELS), BadValue, "x: torch.int64 .* floating-point tensor"),
    (lambda: sg.sample(gaussian, [0.0], LEVELS), BadValue, "x: 'list' .* floating-point"),  # type: ignore[arg-type]
    (
        lambda: sg.sample(lambda x, sigma: x[:, :1], START, LEVELS),
        BadPrediction,
        r"shape \(2, 1, 8, 8\) .*\(2, 3, 8, 8\)",
    ),
    (
        lambda: sg.sample(cast(Any, lambda x, sigma: None), START, LEVELS),
        BadPrediction,
        "returned NoneType; expected a tensor",
    ),
    (lambda: sg.sample(gaussian, START, LEVELS, "euler_cfg_pp"), BadValue, "euler_cfg_pp needs both estimates"),
    (lambda: sg.sample(half_guided, START, LEVELS, "euler_cfg_pp"), BadPrediction, "Prediction\\(denoised, uncond\\)"),
    (lambda: sg.sample(7, START, LEVELS), BadValue, r"denoiser: 7 .* function of \(x, sigma\)"),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, "eulr"), UnknownName, "did you mean 'euler'"),
    (lambda: sg.sample(gaussian, START, LEVELS, gaussian), BadValue, "@sigmagraph.solver"),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, noise=0.5), BadValue, "a seed, which is a whole"),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, seed=1, noise=2), BadValue, "one of seed and noise"),
    (lambda: sg.sample(gaussian, START, LEVELS, sed=1), UnknownName, "option of sampler euler"),
    (lambda: sg.sample(gaussian, START, LEVELS, model="sd3"), BadValue, r"model: 'sd3' .* such as sd3\(\)"),
    (lambda: sg.sigmas("karas", 4), UnknownName, "did you mean 'karras'"),
    (lambda: sg.sigmas("karras", 0), BadValue, "1 or more"),
    (lambda: sg.sigmas("karras", cast(Any, "ten")), BadValue, "steps: 'ten' .* a whole number, 1 or more"),
    (lambda: sg.sigmas("karras", 4, denoise=cast(Any, "half")), BadValue, "denoise: 'half' .* from 0 to 1"),
    (lambda: sg.run(WORKFLOW, cast(Any, ["x"]), home=CHECKOUT), BadValue, 'changes: .*{"KSampler.seed": 7}'),
    (lambda: sg.load("sigmagraph-dmo.safetensors", home=CHECKOUT), UnknownName, "did you mean 'sigmagraph-demo"),
    (lambda: sg.load("/none.safetensors"), sg.EngineError, "/none.safetensors: there is no such file"),
    (lambda: sg.run(WORKFLOW, {"KSampler.sed": 1}, home=CHECKOUT), UnknownName, "did you mean 'seed'"),
    (lambda: sg.run("none.json", home=CHECKOUT), sg.EngineError, "none.json: No such file"),
    (lambda: sg.compare(WORKFLOW, "euler", home=CHECKOUT), BadValue, "samplers: 'euler' .* a list"),
    (lambda: sg.sample(gaussian, torch.tensor(0.0), LEVELS), BadValue, r"x: 'shape \(\), .* floating-point tensor"),
    (lambda: sg.sample(gaussian, START.to("meta"), LEVELS), BadValue, "x: .* on meta"),
    (lambda: sg.sample(gaussian, START.to_sparse(), LEVELS), BadValue, "x: .*sparse"),
    (
        lambda: sg.sample(gaussian, START.to(torch.float8_e4m3fn), LEVELS),
        BadValue,
        "x: torch.float8.* in torch.float32",
    ),
    (lambda: sg.sample(gaussian, START * math.nan, LEVELS), BadValue, "x: .*NaN .* finite numbers"),
    (lambda: sg.sample(gaussian, START, [10**400, 0]), BadValue, "sigmas: .* a list of numbers"),
    (lambda: sg.sample(gaussian, START, torch.ones(2, device="meta")), BadValue, "sigmas: .* a list of numbers"),
    (lambda: sg.sample(gaussian, START, cast(Any, b"karras")), BadValue, "sigmas: .* a list of numbers"),
    (lambda: sg.sample(gaussian, START, LEVELS, seed=10**5000), BadValue, "seed: .*too long to show"),
    (
        lambda: sg.sample(gaussian, START, LEVELS, noise=torch.ones(9, 9)),
        BadValue,
        r"noise: a Tensor of shape \(9, 9\), t",
    ),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, noise=sg.ComfyNoise), BadValue, "noise: <class .*a seed"),  # type: ignore[arg-type]
    (lambda: sg.ComfyNoise(cast(Any, "x")), BadValue, "seed: 'x' .* a whole number from 0"),
    (lambda: sg.PhiloxNoise(cast(Any, 1.5)), BadValue, "seed: 1.5 .* a whole number from 0"),
    (lambda: sg.sample(gaussian, START, LEVELS, mask=[[1]]), BadValue, r"mask: \[\[1\]\] .* a tensor"),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, recording="r"), BadValue, r"recording: 'r' .* a Recording\(\)"),  # type: ignore[arg-type]
    (lambda: sg.sample(gaussian, START, LEVELS, on_tick=3), BadValue, "on_tick: 3 .* a function"),  # type: ignore[arg-type]
    (
        lambda: sg.sample(one_argument, START, LEVELS),
        BadValue,
        r"denoiser: 'one_argument.* function of \(x, sigma\)",
    ),
    (lambda: sg.sample(torch.nn.Identity(), START, LEVELS), BadValue, r"denoiser: 'Identity\(input"),
    (lambda: sg.sample(torch.nn.Identity, START, LEVELS), BadValue, "denoiser: <class .* a function of"),
    (lambda: sg.sample(lambda x, sigma: x.to("meta"), START, LEVELS), BadPrediction, "on meta for a state on cpu"),
    (
        lambda: sg.sample(lambda x, sigma: x.long(), START, LEVELS),
        BadPrediction,
        "returned torch.int64; .* floating-point",
    ),
    (
        lambda: sg.sample(lambda x, sigma: sg.Prediction(cast(Any, None)), START, LEVELS),
        BadPrediction,
        "returned NoneType",
    ),
    (lambda: sg.log_likelihood(cast(Any, None), START, LEVELS), BadValue, "denoiser: None .* a function of"),
    (lambda: sg.log_likelihood(gaussian, START, [math.inf, 1.0]), BadValue, r"sigmas\[0\]: inf .* finite"),
    (lambda: sg.log_likelihood(gaussian, START, [2.0, 1.0, -1.0]), BadValue, r"sigmas\[2\]: -1.0 .* 0 or more"),
    (
        lambda: sg.log_likelihood(lambda x, sigma: x[:1], START, LEVELS),
        BadPrediction,
        r"shape \(1, 3, 8, 8\) for a state",
    ),
    (
        lambda: sg.log_likelihood(lambda x, sigma: x.detach(), START, LEVELS),
        BadValue,
        "lets gradients through: no detach",
    ),
    (
        lambda: sg.log_likelihood(lambda x, sigma: x * math.nan, START, LEVELS),
        BadPrediction,
        "returned NaN or infinity",
    ),
    (lambda: sg.sigmas(cast(Any, None), 3), BadValue, "name: None .* a schedule's name"),
    (lambda: sg.sd3(math.nan), BadValue, r"sd3\(shift\): nan .* a number"),
    (lambda: sg.sd3(-1.0), BadValue, r"sd3\(shift\): -1.0 .* 0 or more"),
    (lambda: sg.flux(cast(Any, "a")), BadValue, r"flux\(mu\): 'a' .* number"),
    (lambda: sg.edm(cast(Any, "a"), 1.0), BadValue, "edm.*'a'.* two levels"),
    (lambda: sg.solver(cast(Any, 3), order=1), BadValue, "name of a sampler: 3 .* a string"),
    (lambda: sg.schedule(cast(Any, gaussian)), BadValue, "name of a schedule: <function .* a string"),
    (
        lambda: sg.solver("x", order=cast(Any, None))(without_result),
        BadValue,
        "sampler x.order: None .* a whole number",
    ),
    (lambda: sg.solver("x", order=1, nosie=3)(without_result), UnknownName, "field of Solver x; did you mean 'noise'"),
    (lambda: sg.schedule("x", exact=3)(with_rho), UnknownName, "field of Schedule x .*exact_length"),
    (lambda: sg.schedule("x")(cast(Any, None)), BadSchedule, "schedule x takes NoneType"),
    (
        lambda: sg.sample(cfg_of(lambda x, sigma, asked: x), START, LEVELS),
        BadPrediction,
        "predict returned Tensor; .* a list of 2",
    ),
    (
        lambda: sg.sample(cfg_of(lambda x, sigma, asked: [x]), START, LEVELS),
        BadPrediction,
        "predict returned 1 estimates; .* of 2",
    ),
    (
        lambda: sg.sample(cfg_of(lambda x, sigma, asked: ["a", x]), START, LEVELS),
        BadPrediction,
        "predict returned str; .* a tensor",
    ),
    (
        lambda: sg.sample(cfg_of(gaussian), START, LEVELS),
        BadValue,
        r"predict: 'gaussian\(x: .* \(x, sigma, conditionings\)",
    ),
    (
        lambda: sg.sample(sg.PerpNeg(cast(Any, lambda x, sigma, asked: [x]), 1, 0, 0.5), START, LEVELS),
        BadPrediction,
        "of 3",
    ),
    (lambda: cfg_of(gaussian, "3"), BadValue, "Cfg.scale: '3' .* a number"),
    (lambda: cfg_of(gaussian, adjust=sg.Rescale(0.7)), BadValue, r"Cfg.adjust: Rescale.* a list of rules"),
    (lambda: cfg_of(gaussian, adjust=["x"]), BadValue, r"Cfg.adjust: 'x' .* Rescale\(0.7\)"),
    (lambda: cfg_of(gaussian, adjust=[sg.Apg()]), BadValue, "Cfg.adjust: Apg.* for `combine`"),
    (lambda: cfg_of(gaussian, combine=sg.Rescale(0.7)), BadValue, r"Cfg.combine: Rescale.* a formula such as Apg\(\)"),
    (lambda: sg.Rescale(cast(Any, "a")), BadValue, "Rescale.share: 'a' .* a number"),
    (lambda: sg.Apg(math.nan), BadValue, "Apg.eta: nan .* a number"),
    (lambda: sg.FirstBlock(cast(Any, "a")), BadValue, "FirstBlock.threshold: 'a' .* a number"),
    (lambda: sg.EasyCache(cast(Any, "a")), BadValue, "EasyCache.threshold: 'a' .* a number"),
    (lambda: sg.Sampling(gaussian, START, LEVELS, sg.sd3(), noise=7), BadValue, r"noise: 7 .* a source of noise"),  # type: ignore[arg-type]
    (lambda: sg.Sampling(gaussian, START, LEVELS, None, noise=sg.ComfyNoise(7)), BadValue, "model: None"),  # type: ignore[arg-type]
    (lambda: sg.load(cast(Any, None), home=CHECKOUT), BadValue, "file in checkpoints: None .* a path"),
    (
        lambda: sg.load("sigmagraph-demo.safetensors", home=CHECKOUT, device="gpu"),
        BadValue,
        "^device: 'gpu' .* one of .*cpu",
    ),
    (lambda: sg.load("sigmagraph-demo.safetensors", home=CHECKOUT, precision="fp99"), BadValue, "^precision: 'fp99'"),
    (
        lambda: sg.load("sigmagraph-demo.safetensors", home=CHECKOUT, text_encoders="clip_l"),
        BadValue,
        "a list of files",
    ),
    (lambda: sg.load("sigmagraph-demo.safetensors", home=cast(Any, 3)), BadValue, "home: 3 .* a path"),
    (lambda: sg.run("a\0b", home=CHECKOUT), MissingFile, "no file can be called that"),
    (lambda: sg.run(WORKFLOW, {"seed": 7}, home=CHECKOUT), BadValue, "^changes: 'seed' .* NODE.INPUT"),
    (lambda: sg.run(WORKFLOW, cast(Any, {3: 7}), home=CHECKOUT), BadValue, "changes: {3: 7} .* a mapping"),
    (
        lambda: sg.run(WORKFLOW, home=CHECKOUT, custom_nodes="/nope"),
        BadValue,
        "custom_nodes: '/nope' .* a list of paths",
    ),
    (
        lambda: sg.run(WORKFLOW, home=CHECKOUT, custom_nodes=["/nope"]),
        MissingFile,
        "/nope: there is no such folder of node",
    ),
    (lambda: sg.compare(WORKFLOW, ["euler"], steps=cast(Any, 4), home=CHECKOUT), BadValue, "steps: 4 .* a list"),
    (lambda: sg.compare(WORKFLOW, cast(Any, [3]), home=CHECKOUT), BadValue, "3 .* a string"),
    (lambda: sg.compare(WORKFLOW, ["euler"], reference=cast(Any, None), home=CHECKOUT), BadValue, "^reference: None"),
    (lambda: sg.Client("localhost"), BadValue, "an address such as http"),
    (lambda: sg.Client("http://127.0.0.1:9").submit({}), sg.EngineError, "cannot be reached: .*sigmagraph serve"),
]


@pytest.mark.parametrize(("call", "kind", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_what_is_wrong_is_told_with_what_is_allowed(
    call: Callable[[], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        call()


def without_result(x: Tensor, sigmas: list[float], ctx: sg.Context) -> sg.Steps:  # type: ignore[return]  # as written by mistake
    denoised = yield sg.Evaluate(x, sigmas[0])
    yield sg.Step(x, cast(Tensor, denoised))


def without_yield(x: Tensor, sigmas: list[float], ctx: sg.Context) -> Tensor:
    return x


def with_a_bare_tensor(x: Tensor, sigmas: list[float], ctx: sg.Context) -> sg.Steps:
    yield cast(Any, x)
    return x


def at_nothing(x: Tensor, sigmas: list[float], ctx: sg.Context) -> sg.Steps:
    yield sg.Evaluate(cast(Any, None), sigmas[0])
    return x


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (without_result, "returned nothing; expected `return x`"),
        (without_yield, "is not a generator: it gave a Tensor; expected `yield Evaluate"),
        (with_a_bare_tensor, r"yielded a Tensor; expected Evaluate\(x, sigma\) or Step"),
        (at_nothing, "asks for an estimate at nothing; expected Evaluate"),
    ],
)
def test_a_solver_that_is_written_wrong_is_told_by_name(written: Any, words: str) -> None:
    try:
        sg.solver("wrong", order=1)(written)
        with pytest.raises(BadSampler, match=f"sampler wrong {words}"):
            sg.sample(gaussian, START, LEVELS, "wrong")
    finally:
        sg.SOLVERS.discard("wrong")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (None, "returned nothing; expected a list of steps [+] 1 numbers"),
        (1.0, "returned a float; expected a list"),
        ((float(level) for level in (1, 0)), "returned a generator; expected a list"),
        ([], "returned an empty list; expected a list"),
        (["4", "0"], "returned a str at place 0; expected a list"),
        ([[4.0, 2.0], [1.0, 0.0]], "returned a list at place 0; expected a list"),
        (torch.zeros(2, 3), r"returned a Tensor of shape \[2, 3\]; expected a list"),
        ([4.0, float("nan"), 1.0, 0.0], "returned nan at place 1; .* finite"),
        ([4.0, 2.0, 1.0, -1.0], "returned -1 at place 3; .* none negative"),
        ([0.0, 1.0, 2.0, 3.0], "returned 1 at place 1; .* from the highest down"),
        ([4.0, 2.0, 0.0], "returned 3 levels for 3 steps; expected 4, or `exact_length=False`"),
    ],
)
def test_a_schedule_that_is_written_wrong_is_told_by_name(made: Any, words: str) -> None:
    try:
        sg.schedule("wrong")(lambda levels, steps: made)
        with pytest.raises(BadSchedule, match=f"schedule wrong {words}"):
            sg.sigmas("wrong", 3)
    finally:
        sg.SCHEDULES.discard("wrong")


@pytest.mark.parametrize(
    "made", [[4, 2, 1, 0], (4.0, 2.0, 1.0, 0.0), torch.tensor([4.0, 2, 1, 0]), [torch.tensor(4.0), 2, 1, 0]]
)
def test_a_schedule_may_give_any_row_of_numbers(made: Any) -> None:
    try:
        sg.schedule("row")(lambda levels, steps: made)
        assert sg.sigmas("row", 3) == [4.0, 2.0, 1.0, 0.0]
        assert all(type(level) is float for level in sg.sigmas("row", 3))
    finally:
        sg.SCHEDULES.discard("row")


def unlike(steps: int) -> list[float]:
    return [float(steps), 0.0]


def with_rho(levels: sampling.Levels, steps: int, *, rho=7.0, even: float = 1.0) -> list[float]:  # type: ignore[no-untyped-def]  # noqa: ANN001  # as a notebook has it
    return [rho * even, *[0.0] * steps]


def without_default(levels: sampling.Levels, steps: int, *, rho: float) -> list[float]:
    return [rho, *[0.0] * steps]


def test_a_function_of_other_parameters_is_refused_where_it_is_declared() -> None:
    with pytest.raises(BadSchedule, match=r"schedule odd takes \(steps\); expected \(levels, steps\), and options"):
        sg.schedule("odd")(unlike)
    with pytest.raises(BadSampler, match=r"sampler odd takes \(levels, steps, rho\); expected \(x, sigmas, ctx\)"):
        sg.solver("odd", order=1)(cast(Any, without_default))
    assert "odd" not in {*sg.SCHEDULES, *sg.SOLVERS}


def test_an_option_has_a_default_and_its_kind_from_it() -> None:
    try:
        sg.schedule("optional")(with_rho)
        sg.schedule("bare")(without_default)
        assert sg.sigmas("optional", 2, rho=3, even=2) == [6.0, 0.0, 0.0]
        with pytest.raises(BadValue, match=r"optional\.rho: 'x' is not allowed; expected float"):
            sg.sigmas("optional", 2, rho="x")
        with pytest.raises(BadValue, match="option rho of without_default: .* expected a default"):
            sg.sigmas("bare", 2)
    finally:
        sg.SCHEDULES.discard("optional")
        sg.SCHEDULES.discard("bare")


def test_a_cell_that_is_run_again_replaces_its_solver() -> None:
    cell = """
@sg.solver("again", order=1)
def again(x, sigmas, ctx):
    denoised = yield sg.Evaluate(x, sigmas[0])
    yield sg.Step(denoised * {factor}, denoised)
    return denoised * {factor}
@sg.schedule("two_levels")
def two_levels(levels, steps):
    return [levels.sigma_max, 0.0]
"""
    space: dict[str, Any] = {"__name__": "__main__", "sg": sg}
    try:
        for factor in (1, 2):
            exec(cell.format(factor=factor), space)
        assert sg.sigmas("two_levels", 1) == [80.0, 0.0]
        assert torch.equal(
            sg.sample(lambda x, sigma: x * 0 + 1, START, [1.0, 0.0], "again"), torch.full_like(START, 2.0)
        )
        elsewhere = {"__name__": "another", "sg": sg}
        with pytest.raises(sg.EngineError, match="registered already"):
            exec(cell.format(factor=1), elsewhere)
    finally:
        sg.SOLVERS.discard("again")
        sg.SCHEDULES.discard("two_levels")


@pytest.fixture(scope="module")
def checkpoint() -> Any:
    return sg.load("sigmagraph-demo.safetensors", home=CHECKOUT)


def test_generate_makes_what_the_graph_makes(checkpoint: Any, tmp_path: Path) -> None:
    changes = {"KSampler.steps": 3, "KSampler.seed": 9, "KSampler.sampler_name": "heun", "KSampler.scheduler": "simple"}
    ran = sg.run(WORKFLOW, changes, home=CHECKOUT, output=tmp_path)
    prompt = read_workflow(WORKFLOW.read_bytes()).nodes["2"].inputs["text"]
    options: dict[str, Any] = {
        "width": 128,
        "height": 128,
        "guidance_scale": 4.0,
        "solver": "heun",
        "schedule": "simple",
    }
    made = sg.generate(checkpoint, prompt, steps=3, seed=9, **options)
    assert made.evaluations == sum(2 if sigma > 0 else 1 for _, sigma in pairwise(made.sigmas))
    saved = made.save(tmp_path / "made.png")
    assert torch.equal(read_picture(saved[0])[0], read_picture(ran.images[0])[0])
    assert '"seed": 9' in carried_texts(saved[0].read_bytes())["parameters"]


def test_a_batch_is_saved_as_several_files_and_its_images_differ(checkpoint: Any, tmp_path: Path) -> None:
    made = sg.generate(
        checkpoint, "a red heart", steps=1, width=64, height=32, batch_size=2, guidance=[sg.Rescale(0.5)]
    )
    assert made.images.shape == (2, 32, 64, 3)
    assert not torch.equal(made.images[0], made.images[1])
    assert [path.name for path in made.save(tmp_path / "a.png")] == ["a.png", "a_1.png"]
    with pytest.raises(BadValue, match=r"ends in \.png"):
        made.save(tmp_path / "a.jpg")


WRONG_KINDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "\ud800"}, "prompt: .* surrogate pairs"),
    ({"seed": "x"}, "seed: 'x' .* a whole number"),
    ({"seed": 1.0}, "seed: 1.0 .* a whole number"),
    ({"guidance_scale": "4"}, "guidance_scale: '4' .* a number"),
    ({"solver": None}, "solver: None .* a string"),
    ({"guidance": "rescale"}, "guidance: 'rescale' .* a list of rules"),
    ({"guidance": ["rescale"]}, "Cfg.adjust: 'rescale' .* rules such as"),
    ({"guidance": [sg.Rescale]}, "Cfg.adjust: <class .* rules such as"),
    ({"step_cache": "first_block"}, r"step_cache: 'first_block' .* FirstBlock\(0.1\)"),
    ({"step_cache": sg.FirstBlock}, "step_cache: <class .* a step cache such as"),
    ({"on_tick": 3}, "on_tick: 3 .* a function"),
]


def test_generate_refuses_what_it_cannot_make(checkpoint: Any) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"width": 100}, "a multiple of 16"),
        ({"batch_size": 0}, "1 or more"),
        ({"steps": 0}, "1 or more"),
        ({"prompt": 3}, "prompt: 3 .* a string"),
    ]
    for given, words in [*wrong, *WRONG_KINDS]:
        with pytest.raises(sg.EngineError, match=words):
            sg.generate(checkpoint, **({"prompt": "x", "steps": 1, "width": 32, "height": 32} | given))
    with pytest.raises(BadValue, match="path: None .* ends in"):
        sg.generate(checkpoint, "x", steps=1, width=32, height=32).save(cast(Any, None))
    with pytest.raises(BadValue, match="what sigmagraph.load"):
        sg.generate("demo", "x")  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="fetch text-encoders"):
        sg.generate(checkpoint._replace(clip=None), "x")


def test_a_run_has_its_pictures_reports_and_the_lock_they_carry(tmp_path: Path) -> None:
    ran = sg.run(WORKFLOW, {"KSampler.steps": 1}, home=CHECKOUT, output=tmp_path)
    assert [path.parent for path in ran.images] == [tmp_path]
    assert ran.reports["5"].outcome == "executed"
    assert ran.lock == read_lock(carried_texts(ran.images[0].read_bytes())[CHUNK])
    again = sg.run(ran.images[0], home=CHECKOUT, output=tmp_path)
    assert torch.equal(read_picture(again.images[0])[0], read_picture(ran.images[0])[0])


def test_a_comparison_of_seeds_measures_each_against_its_own_reference() -> None:
    found = sg.compare(WORKFLOW, ["euler"], steps=[1, 2], seeds=[1, 2], reference="euler/sgm_uniform/2", home=CHECKOUT)
    away = {(cell.steps, cell.seed): distance for cell, distance in found.distances.items()}
    assert away[2, 1] == away[2, 2] == 0.0
    assert away[1, 1] > 0
    assert away[1, 1] != away[1, 2]
    assert [cell.steps for cell, _, _ in found.ranking()] == [2, 1]


def test_the_list_of_public_names_is_complete_and_each_is_there() -> None:
    tree = ast.parse(Path(sg.__file__ or "").with_suffix(".pyi").read_text(encoding="utf-8"))
    typed = {
        name.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert typed == vars(sg)["_HOME_OF"]
    names = sorted(typed)
    assert names == vars(sg)["__all__"]
    assert all(getattr(sg, name) is not None for name in names)
    with pytest.raises(AttributeError, match="did you mean 'sigmas'"):
        getattr(sg, "sigma")  # noqa: B009  # a type checker knows that it is not there


def test_importing_it_brings_nothing_heavy() -> None:
    heavy = "('torch', 'sigmagraph', 'numpy', 'pydantic')"
    code = f"import sys, sigmagraph; print(*sorted(n for n in sys.modules if n.startswith({heavy})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sigmagraph"]
    light = "import sys, sigmagraph; sigmagraph.Client; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
