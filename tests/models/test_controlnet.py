"""ControlNets against diffusers' on random weights, against ComfyUI's recorded positions, and by laws."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import BadValue, EngineError, UnknownModel
from sigmagraph.engine.models import Conditioning, Control, ControlNet, Model, load_controlnet, load_diffusion_model
from sigmagraph.engine.models.arch.mmdit import stretched_positions
from sigmagraph.engine.models.controlnet import Asked
from sigmagraph.engine.models.memory.residency import RESIDENCY
from sigmagraph.engine.models.regions import Area, Region
from sigmagraph.engine.models.value import predict_together
from sigmagraph.engine.sampling import ComfyNoise, Recording, Sampling
from tests.models import control_oracles as oracle
from tests.models.conftest import Unpack

HINT = torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(5))
STATE = torch.randn(2, 16, 10, 12, generator=torch.Generator().manual_seed(6))
DOWN = 8


class MeanVae:
    """A stand-in for an autoencoder: sixteen mixtures of the means of 8 x 8 pixels."""

    def __init__(self) -> None:
        self.mixture = torch.randn(16, 3, generator=torch.Generator().manual_seed(7))
        self.calls = 0

    def encode(self, image: Tensor) -> Tensor:
        self.calls += 1
        means = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), DOWN)
        return torch.einsum("ck,bkhw->bchw", self.mixture, means)


def text(seed: int, length: int = 7) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    context, pooled = torch.randn(1, length, oracle.CONTEXT, generator=generator), torch.randn(1, oracle.POOLED)
    return Conditioning(context, torch.randn(pooled.shape, generator=generator))


def parts(entry: Conditioning, batch: int) -> tuple[Tensor, Tensor]:
    assert entry.pooled is not None
    return entry.context.expand(batch, -1, -1), entry.pooled.expand(batch, -1)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Model]:
    theirs = oracle.transformer()
    return theirs, load_diffusion_model(oracle.saved(theirs, tmp_path_factory.mktemp("main")))


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ControlNet]]:
    """One of each kind: diffusers' and ours."""
    made = {
        "plain": oracle.joint(3, qk_norm=None),
        "dual": oracle.joint(2, seed=3, qk_norm="rms_norm", dual_attention_layers=(0,)),
        "pooled": oracle.joint(2, seed=4, qk_norm="rms_norm", force_zeros_for_pooled_projection=False),
        "inpainting": oracle.joint(2, seed=5, extra_conditioning_channels=1),
        "canny": oracle.stream(2),
    }
    folder = tmp_path_factory.mktemp("nets")
    return {
        name: (net, replace(load_controlnet(oracle.saved(net, folder / name)), convention="official"))
        for name, net in made.items()
    }


def control(net: ControlNet, **more: Any) -> Control:
    mask = {"mask": (HINT[..., :1] > 0.5).float().movedim(-1, 1)} if net.takes_mask else {}
    return Control(net, HINT, MeanVae(), **(mask | more))


def theirs_at(main: Any, net: Any, ours: Control, x: Tensor, sigma: float, entry: Conditioning) -> Tensor:
    """The estimate as diffusers' pipeline makes it of the same hint."""
    timestep, batch = torch.full((len(x),), sigma * 1000), len(x)
    hint = ours.latent(*x.shape[-2:]).expand(batch, -1, -1, -1)
    made = [
        residual * ours.strength for residual in oracle.residuals(net, main, x, hint, timestep, parts(entry, batch))
    ]
    last = made[-1] if net.context_embedder is None else None
    return x - sigma * oracle.velocity(main, x, timestep, parts(entry, batch), made, last)


@pytest.mark.parametrize("kind", ["plain", "dual", "pooled", "inpainting", "canny"])
@torch.no_grad()
def test_a_prediction_with_a_controlnet_is_diffusers(
    kind: str, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    net, ours = nets[kind]
    acting = control(ours, strength=0.7)
    entry = text(1)
    (found,) = main[1].predict(STATE, 0.6, [entry.with_control(acting)])
    torch.testing.assert_close(found, theirs_at(main[0], net, acting, STATE, 0.6, entry), rtol=0, atol=1e-5)
    (without,) = main[1].predict(STATE, 0.6, [entry])
    assert float((found - without).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", ["dual", "canny"])
@torch.no_grad()
def test_a_whole_guided_run_is_diffusers(
    kind: str, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    """Euler over five levels; the net acts on both sides of guidance, from the second level on."""
    (theirs, model), (net, ours) = main, nets[kind]
    sigmas, scale = [1.0, 0.9, 0.7, 0.4, 0.1, 0.0], 3.0
    acting = control(ours, start=0.05, strength=0.8)
    positive, negative = text(1), text(2)
    guided = model.guided(positive.with_control(acting), negative.with_control(acting), scale)
    run = Sampling(guided, torch.zeros_like(STATE), sigmas, model.parameterisation, "euler", noise=ComfyNoise(3))
    x = noise = ComfyNoise(3).initial(torch.zeros_like(STATE))
    for sigma, sigma_next in pairwise(sigmas):
        sides = []
        for entry in (negative, positive):
            if sigma < 1.0:
                sides.append(theirs_at(theirs, net, acting, x, sigma, entry))
            else:
                timestep = torch.full((len(x),), 1000 * sigma)
                sides.append(x - sigma * oracle.velocity(theirs, x, timestep, parts(entry, len(x)), []))
        estimate = sides[0] + scale * (sides[1] - sides[0])
        x = x + (x - estimate) / sigma * (sigma_next - sigma)
    found = run.run()
    assert float((found - noise).abs().max()) > 1
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)


@torch.no_grad()
def test_several_nets_add_up_block_by_block(main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]) -> None:
    (theirs, model), x, sigma, entry = main, STATE, 0.5, text(3)
    acting = [control(nets["plain"][1], strength=0.6), control(nets["dual"][1], strength=-0.3)]
    (found,) = model.predict(x, sigma, [entry.with_control(acting[0]).with_control(acting[1])])
    timestep, depth = torch.full((2,), 1000 * sigma), 4
    total = [torch.zeros(1)] * depth
    for one, kind in zip(acting, ("plain", "dual"), strict=True):
        hint = one.latent(10, 12).expand(2, -1, -1, -1)
        made = oracle.residuals(nets[kind][0], theirs, x, hint, timestep, parts(entry, 2))
        total = [total[i] + one.strength * made[i * len(made) // depth] for i in range(depth)]
    expected = x - sigma * oracle.velocity(theirs, x, timestep, parts(entry, 2), total)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    (swapped,) = model.predict(x, sigma, [entry.with_control(acting[1]).with_control(acting[0])])
    torch.testing.assert_close(swapped, found, rtol=0, atol=1e-5)


@torch.no_grad()
def test_both_layouts_of_a_stream_net_are_one_net_and_its_type_says_how_hints_are_prepared(
    tmp_path: Path, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    net, ours = nets["canny"]
    tensors = oracle.original_layout(net)
    found = {}
    for number, kind in enumerate(("blur", "canny", "depth")):
        path = tmp_path / f"{number}.safetensors"
        save_file({**tensors, "control_type": torch.tensor([number], dtype=torch.int32)}, path)
        found[kind] = load_controlnet(path)
        assert found[kind].hint_kind == kind
    assert ours.hint_kind == "canny"  # by the name of its folder
    (tmp_path / "canny").mkdir()
    save_file(tensors, written := tmp_path / "canny" / "large_depth.safetensors")
    assert load_controlnet(written).hint_kind == "depth"  # by its own
    pictures = {kind: one.prepared(HINT) for kind, one in found.items()}
    torch.testing.assert_close(pictures["blur"], HINT, rtol=0, atol=0)
    torch.testing.assert_close(pictures["canny"] * 2 - 1, 255 * HINT, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(pictures["depth"], 1 - HINT, rtol=0, atol=0)
    official = {kind: replace(one, convention="official").prepared(HINT) for kind, one in found.items()}
    torch.testing.assert_close(official["canny"] * 2 - 1, 127.5 * HINT + 0.5, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(official["depth"], HINT, rtol=0, atol=0)
    entry, same = text(1), replace(found["canny"], convention="official")
    ours_and_theirs = [main[1].predict(STATE, 0.5, [entry.with_control(control(one))])[0] for one in (same, ours)]
    assert torch.equal(*ours_and_theirs)


def test_positions_without_a_table_are_comfyuis(unpack: Unpack) -> None:
    recorded = load_file(unpack("control_positions.safetensors"))
    for case, (rows, columns) in {"square": (8, 8), "wide": (4, 7)}.items():
        torch.testing.assert_close(stretched_positions(rows, columns, 128)[0], recorded[case], rtol=0, atol=1e-6)


def blocks_of(net: ControlNet, layers: int, depth: int) -> list[int]:
    spread = net.spread([torch.tensor(float(i)) for i in range(layers)], depth)
    return [int(residual) for residual in spread]


@pytest.mark.parametrize(
    ("kind", "convention", "layers", "depth", "expected"),
    [
        ("canny", "comfyui", 2, 5, [0, 0, 0, 1, 1]),
        ("canny", "official", 2, 5, [0, 0, 0, 1, 1]),
        ("canny", "official", 2, 4, [0, 0, 1, 1]),
        ("plain", "comfyui", 2, 4, [0, 0, 1]),
        ("plain", "comfyui", 2, 5, [0, 0, 1, 1]),
        ("plain", "comfyui", 3, 4, [0, 1, 2]),
        ("plain", "official", 3, 4, [0, 0, 1]),  # diffusers: int(i / (4 / 3))
        ("plain", "comfyui", 6, 4, [0, 1, 2]),
    ],
)
def test_residuals_go_to_the_blocks_they_are_for(
    kind: str,
    convention: Any,
    layers: int,
    depth: int,
    expected: list[int],
    nets: dict[str, tuple[Any, ControlNet]],
) -> None:
    assert blocks_of(replace(nets[kind][1], convention=convention), layers, depth) == expected


@torch.no_grad()
def test_joint_nets_get_no_pooled_text_and_no_shift_in_comfyuis_way(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    net = replace(nets["pooled"][1], convention="comfyui")
    latent = torch.randn(1, 16, 2, 2)
    torch.testing.assert_close(net.in_model_space(latent), latent * 1.5305)
    official = nets["pooled"][1]
    assert official.takes_pooled
    torch.testing.assert_close(official.in_model_space(latent), (latent - 0.0609) * 1.5305)
    first, second = text(1), replace(text(1), pooled=text(2).pooled)
    (one, other) = (main[1].predict(STATE, 0.5, [entry])[0] for entry in (first, second))
    assert not torch.equal(one, other)
    with main[1].recipe.use() as network:
        asked = [Asked(STATE, torch.full((2,), 500.0), parts(e, 2)[1], parts(e, 2)[0]) for e in (first, second)]
        hint = control(net).latent(10, 12).expand(2, -1, -1, -1)
        made = [control(net).residuals(network, one, hint) for one in asked]
        assert all(torch.equal(*pair) for pair in zip(*made, strict=True))
        made = [control(official).residuals(network, one, hint) for one in asked]
        assert not torch.equal(made[0][0], made[1][0])


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "canny"])
@torch.no_grad()
def test_a_net_outside_its_time_or_of_no_strength_changes_no_bit(
    kind: str, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    model, entry, ours = main[1], text(1), nets[kind][1]
    level = model.parameterisation.levels.percent_to_sigma
    (plain,) = model.predict(STATE, level(0.5), [entry])
    for outside in (control(ours, start=0.6), control(ours, end=0.4), control(ours, strength=0.0)):
        assert torch.equal(model.predict(STATE, level(0.5), [entry.with_control(outside)])[0], plain)
    for at_an_end in (control(ours, start=0.5), control(ours, end=0.5)):
        assert not torch.equal(model.predict(STATE, level(0.5), [entry.with_control(at_an_end)])[0], plain)


@torch.no_grad()
def test_images_of_a_batch_and_jobs_made_together_are_those_made_alone(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    """Also with a hint for each image, hints of others beside them, and a text without any."""
    model, hints = main[1], torch.cat([HINT, HINT.flip(1)])
    shared = Control(nets["dual"][1], hints, MeanVae())
    entries = [text(1).with_control(shared), text(2).with_control(shared), text(3)]
    other = text(4).with_control(control(nets["canny"][1]))
    together = predict_together([(model, STATE, 0.6, entries), (model, STATE[:1], 0.3, [other])])
    for image in range(2):
        alone = replace(shared, hint=hints[image : image + 1])
        asked = [text(1).with_control(alone), text(2).with_control(alone), text(3)]
        for found, whole in zip(model.predict(STATE[image : image + 1], 0.6, asked), together[0], strict=True):
            torch.testing.assert_close(found, whole[image : image + 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(model.predict(STATE[:1], 0.3, [other])[0], together[1][0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_sides_of_guidance_that_share_a_net_share_its_forward_and_its_hint(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    model, acting, rows = main[1], control(nets["plain"][1]), list[int]()
    hook = acting.net.recipe.network.register_forward_hook(lambda module, given, result: rows.append(len(result[0])))
    for sigma in (0.8, 0.5):
        model.predict(STATE, sigma, [text(1).with_control(acting), text(2).with_control(acting)])
    hook.remove()
    assert rows == [4, 4]
    assert isinstance(acting.vae, MeanVae)
    assert acting.vae.calls == 1


@torch.no_grad()
def test_a_region_is_given_the_part_of_the_hint_that_lies_in_it(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    model, acting = main[1], control(nets["canny"][1])
    region = Region(Area(6, 8, 2, 4))
    (found,) = model.predict(STATE, 0.5, [replace(text(1), region=region).with_control(acting)])
    inside = replace(acting, hint=HINT[:, 16:64, 32:96])
    (expected,) = model.predict(STATE[..., 2:8, 4:12], 0.5, [text(1).with_control(inside)])
    torch.testing.assert_close(found[..., 2:8, 4:12], expected, rtol=0, atol=1e-5)


def test_a_shared_control_reaches_the_other_side_unless_that_has_its_own(
    nets: dict[str, tuple[Any, ControlNet]],
) -> None:
    first, second = (control(nets["plain"][1], strength=strength) for strength in (1.0, 0.5))
    positive = text(1).with_control(first, is_shared=True)
    assert text(2).with_shared_controls(positive).controls == (first,)
    assert text(2).with_shared_controls(text(1).with_control(first)).controls == ()
    own = text(2).with_control(second)
    assert own.with_shared_controls(positive) is own
    two = positive.beside(text(3).with_control(second, is_shared=True))
    assert [one.controls for one in text(2).with_shared_controls(two).entries] == [(first,), (second,)]
    pair = text(4).beside(text(5))
    assert [one.controls for one in pair.with_shared_controls(positive).entries] == [(first,), ()]
    in_area = replace(positive, region=Region(Area(2, 2, 0, 0)))
    assert text(2).with_shared_controls(in_area).controls == ()


@pytest.mark.parametrize("kind", ["dual", "canny"])
@torch.no_grad()
def test_odd_sides_are_continued_like_the_models(
    kind: str, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    model, x = main[1], torch.randn(1, 16, 9, 11)
    acting = control(nets[kind][1])
    (found,) = model.predict(x, 0.5, [text(1).with_control(acting)])
    even, hint = (
        torch.nn.functional.pad(latent, (0, 1, 0, 1), mode="circular") for latent in (x, acting.latent(9, 11))
    )
    whole = replace(acting)
    whole._latents[10, 12] = hint
    (expected,) = model.predict(even, 0.5, [text(1).with_control(whole)])
    torch.testing.assert_close(found, expected[..., :9, :11], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dual", "canny"])
def test_a_streamed_net_gives_the_same_bits(
    kind: str, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, acting = main[1], control(nets[kind][1])
    (resident,) = model.predict(STATE, 0.5, [text(1).with_control(acting)])
    RESIDENCY.free()
    monkeypatch.setattr(RESIDENCY, "choices", replace(RESIDENCY.choices, memory="stream"))
    (streamed,) = model.predict(STATE, 0.5, [text(1).with_control(acting)])
    assert {mode for _, mode in RESIDENCY.held()} == {"streamed"}
    RESIDENCY.free()
    assert torch.equal(streamed, resident)


def test_a_cut_run_is_resumed_to_the_same_bits_and_not_with_another_hint(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    model = main[1]

    def run(acting: Control) -> Sampling:
        guided = model.guided(text(1).with_control(acting), text(2), 2.0)
        latent, sigmas = torch.zeros(1, 16, 6, 8), [1.0, 0.8, 0.5, 0.2, 0.0]
        return Sampling(guided, latent, sigmas, model.parameterisation, "dpmpp_2m", noise=ComfyNoise(3))

    acting = control(nets["canny"][1], end=0.9)
    whole = run(acting).run()
    recording = Recording()
    ticks = run(acting).ticks(recording)
    next(ticks), next(ticks)
    ticks.close()
    assert len(recording.predictions) == 2
    again = replace(acting)  # as after a restart: nothing is known of the hint
    assert torch.equal(run(again).run(recording), whole)
    with pytest.raises(EngineError):
        run(replace(acting, hint=HINT.flip(1))).run(recording)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_a_net_lacks_is_said(main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]) -> None:
    model, hinted = main[1], Control(nets["plain"][1], HINT)
    with pytest.raises(
        BadValue, match="vae: None is not allowed; expected an autoencoder: this ControlNet takes latents"
    ):
        model.predict(STATE, 0.5, [text(1).with_control(hinted)])
    without_mask = Control(nets["inpainting"][1], HINT, MeanVae())
    with pytest.raises(BadValue, match="a picture with a mask: ControlNetInpaintingAliMamaApply"):
        model.predict(STATE, 0.5, [text(1).with_control(without_mask)])


def test_a_net_for_a_model_of_another_width_is_refused(
    tmp_path: Path, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    net = oracle.joint(1, num_attention_heads=1, caption_projection_dim=64)
    acting = control(load_controlnet(oracle.saved(net, tmp_path)))
    with pytest.raises(BadValue, match="of width 64.* expected one of width 128, as this model has"):
        main[1].predict(STATE, 0.5, [text(1).with_control(acting)])


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("joint", {"joint_attention_dim": 64}, "of context width 64.* expected one of context width"),
        ("joint", {"pooled_projection_dim": 16}, "of pooled width 16.* expected one of pooled width"),
        ("joint", {"patch_size": 4}, "of patch 4.* expected one of patch 2"),
        ("joint", {"pos_embed_max_size": 4}, "a picture of 96 pixels a side.* expected at most 64"),
        ("stream", {"pooled_projection_dim": 16}, "of pooled width 16.* expected one of pooled width"),
    ],
)
def test_a_net_that_takes_another_text_or_picture_is_refused_by_name(
    tmp_path: Path, main: tuple[Any, Model], kind: str, changed: dict[str, Any], words: str
) -> None:
    made = oracle.joint(1, **changed) if kind == "joint" else oracle.stream(1, **changed)
    acting = control(load_controlnet(oracle.saved(made, tmp_path)))
    with pytest.raises(BadValue, match=words):
        main[1].predict(STATE, 0.5, [text(1).with_control(acting)])


@pytest.mark.parametrize("hint", [HINT[:0], HINT[..., :1], HINT[0]])
def test_a_hint_that_is_no_picture_is_refused_by_name(
    main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]], hint: Tensor
) -> None:
    acting = replace(control(nets["plain"][1]), hint=hint)
    with pytest.raises(BadValue, match=r"image: \[.* expected one picture or more, \[B, H, W, 3\]"):
        main[1].predict(STATE, 0.5, [text(1).with_control(acting)])


def test_files_of_other_kinds_are_named_and_a_controlnet_elsewhere_is_too(
    tmp_path: Path, main: tuple[Any, Model], nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    path = oracle.saved(main[0], tmp_path / "main")
    with pytest.raises(UnknownModel, match="it holds a diffusion model; a ControlNet of the SD3 family was expected"):
        load_controlnet(path)
    with pytest.raises(UnknownModel, match="it holds a ControlNet"):
        load_diffusion_model(oracle.saved(nets["plain"][0], tmp_path / "net"))


@pytest.mark.parametrize("kind", ["dual", "canny"])
def test_whatever_tensor_of_a_net_is_missing_or_misshapen_is_an_engine_error(
    tmp_path: Path, kind: str, nets: dict[str, tuple[Any, ControlNet]]
) -> None:
    whole = nets[kind][0].state_dict()
    for name in sorted(whole)[::3]:
        others = {key: tensor for key, tensor in whole.items() if key != name}
        for changed in (others, {**others, name: torch.zeros(3)}, {**others, name: torch.zeros(0)}):
            save_file(changed, tmp_path / "x.safetensors")
            with pytest.raises(EngineError):
                load_controlnet(tmp_path / "x.safetensors")
