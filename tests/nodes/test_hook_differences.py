"""Another checkpoint as a hook: exactly so much of the way from each weight to its own."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import StaleFile, TensorMismatch, UnknownModel
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models import Checkpoint, Clip, Conditioning, load_checkpoint
from sigmagraph.engine.models.files.read import is_view
from sigmagraph.engine.models.hooks import Hook
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.types import LatentValue

Hooks = tuple[Hook, ...]
ENCODERS = ("clip_l", "clip_g", "t5xxl")
X = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(0))
SIGMA = 0.6
ROUNDING = {"rtol": 0.0, "atol": 1e-5}  # of float32 sums in another order, through the whole network


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Folders:
    """The tiny checkpoint as `own`, and `other`, in which every tensor is another: norms, biases and embeddings too."""
    home = tmp_path_factory.mktemp("differences")
    folder, random = home / "models/checkpoints", torch.Generator().manual_seed(3)
    folder.mkdir(parents=True)
    (folder / "own.safetensors").symlink_to(tiny_checkpoint)
    changed = {
        name: (tensor.float() + torch.randn(tensor.shape, generator=random) / 20).half()
        for name, tensor in load_file(tiny_checkpoint).items()
    }
    with safe_open(tiny_checkpoint, "pt") as file:
        save_file(changed, folder / "other.safetensors", file.metadata())
    return Folders(home / "models", home, home, home)


@pytest.fixture(scope="module")
def own(services: Folders) -> Checkpoint:
    return load_checkpoint(services.path("checkpoints", "own.safetensors"))


@pytest.fixture(scope="module")
def other(services: Folders) -> Checkpoint:
    return load_checkpoint(services.path("checkpoints", "other.safetensors"))


def made(services: Folders, model: float = 1.0, clip: float = 1.0, **inputs: Any) -> Hooks:
    given = {"ckpt_name": "other.safetensors", "strength_model": model, "strength_clip": clip, "services": services}
    hooks: Hooks = NODES["CreateHookModelAsLora"](**(given | inputs))
    return hooks


def text(seed: int) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(1, 6, 128, generator=generator), torch.randn(1, 128, generator=generator))


def hooked(one: Conditioning, given: Hooks) -> Conditioning:
    result: Conditioning = NODES["ConditioningSetProperties"](cond_NEW=one, set_cond_area="default", hooks=given)
    return result


def encoded(clip: Clip | None, given: Hooks = ()) -> tuple[Tensor, Tensor]:
    assert clip is not None
    found = NODES["SetClipHooks"](clip=clip, hooks=given).encode("a red circle")
    assert found.pooled is not None
    return found.context, found.pooled


def weights(checkpoint: Checkpoint, given: Hooks = ()) -> dict[str, Tensor]:
    """Every weight of the transformer and the text encoders, CLIP's projection too, as the hooks leave it."""
    clip: Any = NODES["SetClipHooks"](clip=checkpoint.clip, hooks=given)
    tables = {"model": checkpoint.model.hooked(given, SIGMA).recipe.weights}
    tables |= {name: clip.patched[name].recipe.weights for name in ENCODERS}
    tables["clip_g outside"] = {"projection": clip.patched["clip_g"].projection}
    return {f"{part} {name}": stored.read().float() for part, table in tables.items() for name, stored in table.items()}


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.25])
def test_every_weight_goes_so_much_of_the_way(
    own: Checkpoint, other: Checkpoint, services: Folders, strength: float
) -> None:
    before, there, after = weights(own), weights(other), weights(own, made(services, strength, strength))
    for name, weight in before.items():
        assert not torch.equal(weight, there[name])
        assert torch.equal(after[name], weight + strength * (there[name] - weight)), name


def test_strength_nought_is_no_hook_bit_for_bit(own: Checkpoint, services: Folders) -> None:
    plain = own.model.predict(X, SIGMA, [text(1)])[0]
    assert torch.equal(own.model.predict(X, SIGMA, [hooked(text(1), made(services, 0.0, 1.0))])[0], plain)
    for found, expected in zip(encoded(own.clip, made(services, 1.0, 0.0)), encoded(own.clip), strict=True):
        assert torch.equal(found, expected)
    before = made(services, 0.5)
    assert made(services, 0.0, 0.0, prev_hooks=before) == before


def test_strength_one_is_the_other_checkpoint(own: Checkpoint, other: Checkpoint, services: Folders) -> None:
    (found,) = own.model.predict(X, SIGMA, [hooked(text(1), made(services))])
    torch.testing.assert_close(found, other.model.predict(X, SIGMA, [text(1)])[0], **ROUNDING)
    assert not torch.allclose(found, own.model.predict(X, SIGMA, [text(1)])[0], atol=1e-2)
    for one, expected in zip(encoded(own.clip, made(services)), encoded(other.clip), strict=True):
        torch.testing.assert_close(one, expected, **ROUNDING)


def test_half_strength_is_the_merge_of_halves(own: Checkpoint, other: Checkpoint, services: Folders) -> None:
    given = made(services, 0.5, 0.5)
    merged = NODES["ModelMergeSimple"](model1=own.model, model2=other.model, ratio=0.5)
    (found,) = own.model.predict(X, SIGMA, [hooked(text(1), given)])
    torch.testing.assert_close(found, merged.predict(X, SIGMA, [text(1)])[0], **ROUNDING)
    clip = NODES["CLIPMergeSimple"](clip1=own.clip, clip2=other.clip, ratio=0.5)
    for one, expected in zip(encoded(own.clip, given), encoded(clip), strict=True):
        torch.testing.assert_close(one, expected, **ROUNDING)


def test_chained_hooks_add_their_differences(own: Checkpoint, services: Folders) -> None:
    both = weights(own, made(services, 0.25, 0.25, prev_hooks=made(services, 0.5, 0.5)))
    for name, weight in weights(own, made(services, 0.75, 0.75)).items():
        torch.testing.assert_close(both[name], weight, rtol=0, atol=1e-6)


def test_keyframes_switch_it_in_the_middle_as_two_runs_do(
    own: Checkpoint, other: Checkpoint, services: Folders
) -> None:
    first = NODES["CreateHookKeyframe"](strength_mult=0.0, start_percent=0.0)
    frames = NODES["CreateHookKeyframe"](strength_mult=1.0, start_percent=0.5, prev_hook_kf=first)
    timed = NODES["SetHookKeyframes"](hooks=made(services), hook_kf=frames)
    sigmas = NODES["BasicScheduler"](model=own.model, scheduler="normal", steps=4)
    cut = sum(sigma > own.model.parameterisation.levels.percent_to_sigma(0.5) for sigma in sigmas)
    assert 0 < cut < 4
    node, settings = NODES["KSamplerAdvanced"], {"noise_seed": 7, "steps": 4, "cfg": 3.0, "scheduler": "normal"}
    blank, sides = LatentValue(torch.zeros(1, 16, 6, 8)), {"positive": text(1), "negative": text(2)}
    switched = {side: hooked(one, timed) for side, one in sides.items()}
    whole = node(model=own.model, latent_image=blank, **settings, **switched)
    early = {"end_at_step": cut, "return_with_leftover_noise": "enable"}
    half = node(model=own.model, latent_image=blank, **settings, **sides, **early)
    late = {"start_at_step": cut, "add_noise": "disable"}
    rest = node(model=other.model, latent_image=half, **settings, **sides, **late)
    torch.testing.assert_close(whole.samples, rest.samples, rtol=1e-4, atol=1e-4)


def test_model_only_leaves_the_text_alone(own: Checkpoint, services: Folders) -> None:
    alone = NODES["CreateHookModelAsLoraModelOnly"](
        ckpt_name="other.safetensors", strength_model=0.5, services=services
    )
    assert [(one.strength_model, one.strength_clip) for one in alone] == [(0.5, 0.0)]
    for found, expected in zip(encoded(own.clip, alone), encoded(own.clip), strict=True):
        assert torch.equal(found, expected)
    (found,) = own.model.predict(X, SIGMA, [hooked(text(1), alone)])
    assert torch.equal(found, own.model.predict(X, SIGMA, [hooked(text(1), made(services, 0.5))])[0])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias", "diffusion model"),
        ("text_encoders.clip_g.transformer.text_model.final_layer_norm.weight", "clip_g"),
    ],
)
def test_another_shape_is_refused_by_name(
    own: Checkpoint, services: Folders, tmp_path: Path, name: str, part: str
) -> None:
    tensors = load_file(services.path("checkpoints", "other.safetensors"))
    sizes = list(tensors[name].shape)
    tensors[name] = torch.zeros(7, dtype=torch.half)
    path = tmp_path / "odd.safetensors"
    save_file(tensors, path)
    given = made(Odd(path))
    with pytest.raises(TensorMismatch) as caught:
        own.model.predict(X, SIGMA, [hooked(text(1), given)]) if part == "diffusion model" else encoded(own.clip, given)
    tensor = name.partition("diffusion_model.")[2] or name.partition("text_model.")[2]
    assert str(caught.value).startswith(f"{path}: {part}: {tensor} is [7], the model's own is {sizes}: ")


class Odd:
    """Services that know one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self, folder: str, name: str) -> Path:
        return self._path


def test_what_the_other_file_lacks_stays(
    own: Checkpoint, services: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = load_file(services.path("checkpoints", "other.safetensors")), tmp_path / "part.safetensors"
    prefix = "model.diffusion_model."
    kept = {name: tensor for name, tensor in whole.items() if name.startswith(prefix) and "final" not in name}
    save_file(kept, path)
    with caplog.at_level(logging.WARNING):
        given = made(Odd(path))
    assert "holds no text encoder: strength_clip changes nothing" in caplog.text
    before, after = weights(own), weights(own, given)
    for name, weight in before.items():
        part, bare = name.split(" ", 1)
        assert torch.equal(after[name], weight) == (part != "model" or "final" in bare)
    save_file({name: tensor for name, tensor in whole.items() if not name.startswith(prefix)}, path)
    with pytest.raises(UnknownModel, match="a diffusion model of the SD3 family was expected"):
        made(Odd(path))


def test_the_other_file_stays_where_it_is_until_a_network_is_made(own: Checkpoint, services: Folders) -> None:
    (hook,) = made(services)
    difference: Any = hook.adapter
    tables = [difference.model, *difference.encoders.values()]
    assert all(is_view(stored) for table in tables for stored in table.values())
    clip: Any = NODES["SetClipHooks"](clip=own.clip, hooks=(hook,))
    t5 = clip.patched["t5xxl"].recipe.weights
    assert t5["shared.weight"] is t5["encoder.embed_tokens.weight"]  # one table, blended once


def test_a_file_that_changed_since_is_told(own: Checkpoint, services: Folders, tmp_path: Path) -> None:
    path = tmp_path / "changing.safetensors"
    path.write_bytes(services.path("checkpoints", "other.safetensors").read_bytes())
    given = made(Odd(path), 0.375)
    os.utime(path, ns=(1, 1))
    with pytest.raises(StaleFile, match="changing.safetensors"):
        own.model.predict(X, SIGMA, [hooked(text(1), given)])
