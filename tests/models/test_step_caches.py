"""Step caches on a transformer of random weights: what is left out, whose state is whose, and what goes with them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.models import Conditioning, Model, load_diffusion_model
from sigmagraph.engine.models.arch import MMDiTShape
from sigmagraph.engine.models.arch.attention_changes import IdentityAttention
from sigmagraph.engine.models.compiled import CompiledBlocks
from sigmagraph.engine.models.memory.choices import MemoryChoices
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.sampling import PhiloxNoise, Prediction, Recording, Sampling, find_schedule, run_sigmas
from sigmagraph.engine.sampling.caches import BlockCache, FirstBlock, MagCache, TaylorSeer, TeaCache
from sigmagraph.engine.sampling.caches.caching import CacheReport
from sigmagraph.engine.sampling.guidance import Apg, DualCfg, EasyCache, LazyCache, ReuseRule, SkipLayer
from tests.serving import CHECKOUT
from tests.weights import drawn_weights

SHAPE = MMDiTShape(3, 128, 64, 96, 24)
NEUTRAL = [FirstBlock(0.0), TeaCache(0.0), MagCache(0.0), TaylorSeer(1), EasyCache(0.0), LazyCache(0.0)]
ACTIVE = [
    FirstBlock(0.7),
    TeaCache(0.15),
    MagCache(0.05),
    TaylorSeer(2),
    EasyCache(0.15, 0.0, 1.0),
    LazyCache(0.15, 0.0, 1.0),
]
BLOCKS = [rule for rule in ACTIVE if isinstance(rule, BlockCache)]
STEPS = 10
Rule = BlockCache | ReuseRule


def named(rule: Rule) -> str:
    return rule.label


@pytest.fixture(autouse=True)
def own_choices() -> Iterator[None]:
    before = RESIDENCY.choices
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu")
    yield
    RESIDENCY.choices = before
    RESIDENCY.free()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(drawn_weights(SHAPE), path)
    return path


@pytest.fixture
def model(file: Path) -> Model:
    return load_diffusion_model(file)


def text(seed: int, tokens: int = 7) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, tokens, 96, generator=generator), torch.randn(1, 64, generator=generator))


def sampling(
    model: Model, images: int = 1, *, denoiser: Any = None, solver: str = "euler", first: int = 0, seed: int = 5
) -> Sampling:
    levels = run_sigmas(find_schedule("simple"), model.parameterisation.levels, STEPS)
    return Sampling(
        denoiser if denoiser is not None else model.guided(text(1), text(2), 3.0),
        torch.zeros(images, 16, 6, 8),
        levels,
        model.parameterisation,
        solver,
        noise=PhiloxNoise(seed),
        batch_index=[*range(first, first + images)],
    )


def sampled(run: Sampling, recording: Recording | None = None) -> tuple[Tensor, CacheReport]:
    reports: list[CacheReport] = []
    final = replace(run, on_cached=reports.append).run(recording)
    [report] = reports
    return final, report


def blocks_run(model: Model) -> list[int]:
    """The rows of every call of the last block from now on."""
    rows: list[int] = []
    model.network.joint_blocks[-1].register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    return rows


@pytest.mark.parametrize("rule", NEUTRAL, ids=named)
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_a_neutral_setting_is_the_plain_model_bit_for_bit(model: Model, rule: Rule, solver: str) -> None:
    plain = sampling(model, 2, solver=solver).run()
    final, report = sampled(sampling(model.with_step_cache(rule), 2, solver=solver))
    assert torch.equal(final, plain)
    assert (report.skipped, report.drift_estimate) == (0, 0.0)


@pytest.mark.parametrize("rule", ACTIVE, ids=named)
def test_what_is_left_out_does_not_run_and_a_second_run_is_the_first(model: Model, rule: Rule) -> None:
    plain = sampling(model).run()
    cached = sampling(model.with_step_cache(rule))
    rows = blocks_run(model)
    final, report = sampled(cached)
    sides = 1 if isinstance(rule, LazyCache) else 2
    assert report.asked == sides * STEPS
    assert 0 < report.skipped < report.asked
    assert sum(rows) == 2 // sides * (report.asked - report.skipped)
    assert 0 < float((final - plain).norm()) < 0.5 * float(plain.norm())
    again, told = sampled(cached)
    assert torch.equal(again, final)
    assert told == report


@pytest.mark.parametrize("rule", ACTIVE, ids=named)
def test_an_image_of_a_batch_is_the_image_alone(model: Model, rule: Rule) -> None:
    cached = model.with_step_cache(rule)
    together, whole = sampled(sampling(cached, 3))
    skipped = 0
    for image in range(3):
        alone, report = sampled(sampling(cached, 1, first=image))
        torch.testing.assert_close(together[image : image + 1], alone, rtol=0, atol=1e-4)
        skipped += report.skipped
    assert whole.skipped == skipped > 0


@pytest.mark.parametrize("rule", ACTIVE, ids=named)
def test_two_interleaved_runs_are_the_runs_alone(model: Model, rule: Rule) -> None:
    cached = model.with_step_cache(rule)
    shared = cached.guided(text(1), text(2), 3.0)
    runs = [sampling(cached, denoiser=shared, seed=seed) for seed in (5, 6)]
    alone = [run.run() for run in runs]
    under_way = {place: run.ticks() for place, run in enumerate(runs)}
    found: dict[int, Tensor] = {}
    while under_way:
        for place, ticks in list(under_way.items()):
            try:
                next(ticks)
            except StopIteration as end:
                found[place] = end.value
                del under_way[place]
    assert all(torch.equal(found[place], final) for place, final in enumerate(alone))


@pytest.mark.parametrize("rule", ACTIVE, ids=named)
def test_a_run_cut_after_any_evaluation_and_resumed_is_the_whole_one(model: Model, rule: Rule) -> None:
    """What was recorded is made again: the recorded predictions here are wrong on purpose."""
    cached = sampling(model.with_step_cache(rule))
    recording = Recording()
    whole, report = sampled(cached, recording)
    assert len(recording.predictions) == STEPS
    for cut in range(1, STEPS):
        half = Recording([Prediction(one.denoised * 0.0) for one in recording.predictions[:cut]])
        final, told = sampled(cached, half)
        assert torch.equal(final, whole)
        assert told == report
        assert len(half.predictions) == STEPS


@pytest.mark.parametrize("rule", BLOCKS, ids=named)
def test_each_side_has_a_state_of_its_own(model: Model, rule: BlockCache) -> None:
    """Guided = U + w (C - U), with C and U as two runs over the same states would have them."""
    cached = model.with_step_cache(rule)
    both = cached.guided(text(1), text(2), 3.0).begin()
    sides = [cached.guided(one, one, 1.0).begin() for one in (text(1), text(2))]
    x = sampling(model).noise.initial(torch.zeros(1, 16, 6, 8))
    for sigma in run_sigmas(find_schedule("simple"), model.parameterisation.levels, STEPS)[:-1]:
        cond, uncond = (side(x, sigma).denoised for side in sides)
        torch.testing.assert_close(both(x, sigma).denoised, uncond + (cond - uncond) * 3.0, rtol=0, atol=2e-4)
        x = x * 0.95
    asked: Any = both.predict
    assert asked.drift.skipped == sum(side.predict.drift.skipped for side in sides) > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", BLOCKS, ids=named)
def test_each_text_length_and_each_entry_in_time_has_a_state_of_its_own(model: Model, rule: BlockCache) -> None:
    """Two entries that act by turns are never answered from each other's residuals: first seen, they are computed."""
    early, late = replace(text(1), start=0.0, end=0.5), replace(text(3, 9), start=0.5, end=1.0)
    sides = replace(early, further=(late,)), text(2, 11)
    cached = model.with_step_cache(rule)
    rows = blocks_run(model)
    final, report = sampled(sampling(cached, denoiser=cached.guided(*sides, 3.0)))
    assert 0 < report.skipped < report.asked
    assert sum(rows) >= report.asked - report.skipped
    plain = sampling(model, denoiser=model.guided(*sides, 3.0)).run()
    assert float((final - plain).norm()) < 0.5 * float(plain.norm())


@pytest.mark.parametrize("rule", BLOCKS, ids=named)
def test_other_guidance_keeps_states_of_its_own_and_is_plain_at_neutral(model: Model, rule: BlockCache) -> None:
    neutral = next(one for one in NEUTRAL if one.label == rule.label)
    for change in (_skip_layer, _apg):
        plain = sampling(model, denoiser=change(model)).run()
        assert torch.equal(sampled(sampling(model, denoiser=change(model.with_step_cache(neutral))))[0], plain)
        final, report = sampled(sampling(model, denoiser=change(model.with_step_cache(rule))))
        assert report.asked == (3 if change is _skip_layer else 2) * STEPS
        assert report.skipped > 0
        assert float((final - plain).norm()) < 0.5 * float(plain.norm())
    plain = sampling(model, denoiser=_dual(model)).run()
    assert torch.equal(sampling(model, denoiser=_dual(model.with_step_cache(neutral))).run(), plain)
    _, report = sampled(sampling(model, denoiser=_dual(model.with_step_cache(rule))))
    assert report.asked == 3 * STEPS
    assert report.skipped > 0


@pytest.mark.parametrize("rule", BLOCKS, ids=named)
def test_changed_attention_and_blocks_left_out_have_states_of_their_own(model: Model, rule: BlockCache) -> None:
    """A model with another attention in some blocks is another model: at neutral, to the bit, also beside the plain."""
    neutral = next(one for one in NEUTRAL if one.label == rule.label)
    change = IdentityAttention(frozenset({1}))

    def guided(model: Model) -> Any:
        weaker = SkipLayer(model.with_attention(change).predictor, text(1), 1.0)
        fewer = SkipLayer(model.with_skipped_layers([1]).predictor, text(1), 0.5)
        return replace(model.guided(text(1), text(2), 3.0), adjust=(weaker, fewer))

    plain = sampling(model, denoiser=guided(model)).run()
    assert torch.equal(sampling(model, denoiser=guided(model.with_step_cache(neutral))).run(), plain)
    final, report = sampled(sampling(model, denoiser=guided(model.with_step_cache(rule))))
    assert report.asked == 4 * STEPS
    assert 0 < report.skipped < report.asked
    assert float((final - plain).norm()) < 0.5 * float(plain.norm())


def test_the_page_runs_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    [block] = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/step-caches.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(block, "step-caches.md", "exec"), found)
    report = found["report"]
    assert 0 < report.skipped < report.asked
    assert report.drift_estimate > 0
    assert found["made"].parameters["step_cache"] == report.written()


def _skip_layer(model: Model) -> Any:
    skipping = model.with_skipped_layers([0]).predictor
    return replace(model.guided(text(1), text(2), 3.0), adjust=(SkipLayer(skipping, text(1), 1.0),))


def _apg(model: Model) -> Any:
    return replace(model.guided(text(1), text(2), 3.0), combine=Apg(0.5, 5.0, -0.3, scale=3.0))


def _dual(model: Model) -> Any:
    return DualCfg(model.predictor, text(1), text(3), text(2), 3.0, 2.0)


@pytest.mark.parametrize("rule", BLOCKS, ids=named)
def test_streamed_and_shared_networks_leave_out_the_same(file: Path, rule: BlockCache) -> None:
    expected, report = sampled(sampling(load_diffusion_model(file).with_step_cache(rule)))
    model = load_diffusion_model(file).with_step_cache(rule)
    pair = replace(model, recipe=replace(model.recipe, second=torch.device("cpu", 0)))
    found = [sampled(sampling(pair))]
    RESIDENCY.free()
    RESIDENCY.choices = MemoryChoices.parse("fp32", "stream", "cpu")
    found.append(sampled(sampling(load_diffusion_model(file).with_step_cache(rule))))
    for final, told in found:
        torch.testing.assert_close(final, expected, rtol=0, atol=1e-4)
        assert (told.asked, told.skipped) == (report.asked, report.skipped)


@pytest.mark.slow
def test_a_compiled_network_leaves_out_the_same(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    rule = FirstBlock(0.7)
    expected, report = sampled(sampling(load_diffusion_model(file).with_step_cache(rule)))
    RESIDENCY.free()
    monkeypatch.setattr(RESIDENCY, "compiled", CompiledBlocks("eager"))
    RESIDENCY.choices = MemoryChoices.parse("fp32", "resident", "cpu", "on")
    final, told = sampled(sampling(load_diffusion_model(file).with_step_cache(rule)))
    torch.testing.assert_close(final, expected, rtol=0, atol=1e-4)
    assert told.skipped == report.skipped > 0
    assert RESIDENCY.compiled.stats()["failure"] == ""


def test_a_magnitude_curve_that_was_measured_decides_alike_for_every_image(model: Model) -> None:
    _, seen = sampled(sampling(model.with_step_cache(MagCache(0.0))))
    assert len(seen.magnitudes) == STEPS
    rule = MagCache(0.05, seen.magnitudes)
    _, report = sampled(sampling(model.with_step_cache(rule), 3))
    assert report.skipped > 0
    assert report.skipped % 3 == 0


def test_a_polynomial_extrapolates_itself_exactly() -> None:
    """Divided differences over uneven levels: residuals that are quadratic in the level are foretold to rounding."""
    from sigmagraph.engine.sampling.caches import CacheSlot

    def residual(sigma: float) -> Tensor:
        return torch.tensor([[[1.0 - 3.0 * sigma + 2.0 * sigma**2]]])

    slot, rule = CacheSlot(1), TaylorSeer(3, 2)
    for sigma in (1.0, 0.83, 0.71, 0.4):
        slot.learn([0], residual(sigma), sigma, rule.keeps)
    for sigma in (0.33, 0.2, 0.05):
        torch.testing.assert_close(rule.forecast(slot, sigma), residual(sigma))


@pytest.mark.parametrize("degree", [1, 2])
def test_a_polynomial_through_levels_that_nearly_agree_is_not_led_by_their_rounding(model: Model, degree: int) -> None:
    levels = [1.0, 0.9, 0.8, 0.7, 0.7 * (1 - 1e-7), 0.5, 0.4, 0.25, 0.12, 0.0]
    plain = replace(sampling(model), sigmas=levels).run()
    cached = model.with_step_cache(TaylorSeer(2, degree, 5))
    final, report = sampled(replace(sampling(cached), sigmas=levels))
    assert report.skipped > 0
    assert float((final - plain).square().mean().sqrt() / plain.std()) < 0.04


def test_a_recording_of_another_precision_is_refused(model: Model, file: Path) -> None:
    recording = Recording()
    sampling(model).run(recording)
    RESIDENCY.choices = MemoryChoices.parse("bf16", "resident", "cpu")
    with pytest.raises(BadValue, match="recording"):
        sampling(load_diffusion_model(file)).run(Recording(recording.predictions, recording.about))


def test_two_kinds_of_cache_and_settings_out_of_range_are_refused(model: Model) -> None:
    cached = model.with_step_cache(FirstBlock(0.1))
    assert cached.with_step_cache(FirstBlock(0.2)).step_cache == FirstBlock(0.2)
    with pytest.raises(BadValue, match="easycache on a model with first_block"):
        cached.with_step_cache(EasyCache(0.1))
    shallow = replace(model, spec=replace(model.spec, shape=replace(SHAPE, depth=1)))
    with pytest.raises(BadValue, match="one block"):
        shallow.with_step_cache(TeaCache(0.1))
    for wrong in (
        lambda: FirstBlock(-0.1),
        lambda: TeaCache(0.1, ()),
        lambda: MagCache(0.1, ((1.0, 0.0),)),
        lambda: TaylorSeer(0),
        lambda: FirstBlock(0.1, start=0.6, end=0.4),
        lambda: FirstBlock(0.1, most_hits=-2),
    ):
        with pytest.raises(BadValue):
            wrong()


def test_a_recording_of_another_setting_is_refused(model: Model) -> None:
    recording = Recording()
    sampling(model.with_step_cache(FirstBlock(0.1))).run(recording)
    with pytest.raises(BadValue, match="recording"):
        sampling(model.with_step_cache(FirstBlock(0.2))).run(recording)
