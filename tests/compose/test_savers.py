"""What packs do with built-in nodes as classes: savers of their own that derive from ours, samplers they call."""

from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from sigmagraph.engine.compose.shims import extras, patching, sampling
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models.load import load_checkpoint
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from tests.serving import CHECKOUT

PICTURE = torch.linspace(0, 1, 48).reshape(1, 4, 4, 3)
PROMPT, DRAWN = {"1": {"class_type": "Mine", "inputs": {}}}, {"workflow": {"nodes": []}}


def nodes(root: Path) -> dict[str, Any]:
    return extras.names(Folders(root, root / "input", root / "output", root / "temp"), NODES, border())["nodes"]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_a_saver_that_chooses_its_folder_and_names_writes_there(tmp_path: Path) -> None:
    class MaskPreview(nodes(tmp_path)["SaveImage"]):  # type: ignore[misc]  # a class made at run time
        def __init__(self) -> None:
            self.output_dir, self.type, self.prefix_append = str(tmp_path / "temp"), "temp", "_temp_abcde"

    saved = MaskPreview().save_images(PICTURE, "masks/mine")
    name = "mine_temp_abcde_00001_.png"
    assert saved == {"ui": {"images": [{"filename": name, "subfolder": "masks", "type": "temp"}]}}
    assert files(tmp_path) == [f"temp/masks/{name}"]


def test_a_saver_that_calls_no_init_finds_where_its_pictures_lie(tmp_path: Path) -> None:
    class Compared(nodes(tmp_path)["PreviewImage"]):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            self.seen = 0

    saver = Compared()
    [shown] = saver.save_images(PICTURE, "pack.compare.", PROMPT, DRAWN)["ui"]["images"]
    assert (shown["type"], shown["filename"].startswith("pack.compare._temp_")) == ("temp", True)
    with PIL.Image.open(Path(saver.output_dir) / shown["filename"]) as written:
        assert (written.text["prompt"], written.text["workflow"]) == (  # type: ignore[attr-defined]  # of a PNG
            '{"1": {"class_type": "Mine", "inputs": {}}}',
            '{"nodes": []}',
        )
    assert files(tmp_path / "output") == []


@pytest.mark.parametrize(("name", "folder"), [("SaveImage", "output"), ("PreviewImage", "temp")])
def test_what_packs_hand_to_a_saver_of_ours_is_in_the_picture(name: str, folder: str, tmp_path: Path) -> None:
    found = nodes(tmp_path)[name]().save_images(PICTURE, filename_prefix="b/PB-", prompt=PROMPT, extra_pnginfo=DRAWN)
    [shown] = found["ui"]["images"]
    with PIL.Image.open(tmp_path / folder / "b" / shown["filename"]) as written:
        assert {"prompt", "workflow"} <= written.text.keys()  # type: ignore[attr-defined]  # as above


Called = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


@pytest.fixture
def called(tmp_path: Path) -> Called:
    """The classes, what samplers are given first, and a blank latent."""
    found = nodes(tmp_path)
    loaded = load_checkpoint(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors")
    crossed = border().translations
    model, clip = (crossed[wire].out(part) for wire, part in (("MODEL", loaded.model), ("CLIP", loaded.clip)))
    [positive], [negative] = (found["CLIPTextEncode"]().encode(clip, text) for text in ("a boat", ""))
    given = {"steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
    given |= {"model": model, "positive": positive, "negative": negative}
    return found, given, {"samples": torch.full((1, 16, 4, 4), 0.5)}


def test_a_part_of_a_shortened_run_is_shortened(called: Called) -> None:
    """`denoise` counts beside steps: a run whose ends are given in full is the run without them."""
    found, given, latent = called

    def sampled(**more: Any) -> Any:
        return found["common_ksampler"](seed=7, latent=latent, **given, **more)[0]["samples"]

    whole, ends = sampled(denoise=0.5), {"start_step": 0, "last_step": 4, "force_full_denoise": True}
    assert torch.equal(sampled(denoise=0.5, **ends), whole)
    assert not torch.equal(sampled(**ends), whole)


def test_the_advanced_sampler_takes_denoise_last(called: Called) -> None:
    found, given, latent = called
    names = ("steps", "cfg", "sampler_name", "scheduler", "positive", "negative")
    order = [given["model"], "enable", 7, *(given[name] for name in names), latent, 0, 4, "disable", 0.5]
    one = found["KSamplerAdvanced"]().sample(*order)[0]["samples"]
    other = found["KSampler"]().sample(seed=7, latent_image=latent, denoise=0.5, **given)[0]["samples"]
    assert torch.equal(one, other)


def test_a_sampler_with_a_step_cache_gives_packs_a_tuple_too(called: Called) -> None:
    found, given, latent = called
    [model] = found["EasyCache"]().run(model=given["model"], reuse_threshold=0.2)
    made = found["KSampler"]().sample(seed=7, latent_image=latent, **{**given, "model": model})
    assert made[0]["samples"].shape == (1, 16, 4, 4)


def test_schedules_of_ours_answer_to_get_sigmas(tmp_path: Path) -> None:
    found = nodes(tmp_path)
    assert len(found["AlignYourStepsScheduler"]().get_sigmas("SDXL", 7, denoise=1.0)[0]) == 8
    assert len(found["GITSScheduler"]().get_sigmas(1.2, 9, 1.0)[0]) == 10


def test_a_blank_latent_of_other_channels_is_sampled_by_packs_as_by_our_node(called: Called) -> None:
    found, given, _ = called
    blank, model = torch.zeros(1, 4, 5, 5), given["model"]
    fixed = sampling.names()["comfy.sample"]["fix_empty_latent_channels"](model, blank)
    noise = sampling.prepare_noise(fixed, 7)
    run = {name: given[name] for name in ("steps", "cfg", "sampler_name", "scheduler", "positive", "negative")}
    made = patching.sample_by_name(model, noise, **run, latent_image=fixed, seed=7)
    [node] = found["KSampler"]().sample(seed=7, latent_image={"samples": blank}, **given)
    assert torch.equal(made, node["samples"])


def test_noise_for_places_of_a_batch_is_drawn_one_by_one() -> None:
    generator = torch.Generator().manual_seed(7)
    draws = [torch.randn(1, 3, 5, 5, generator=generator) for _ in range(3)]
    assert torch.equal(sampling.prepare_noise(torch.zeros(2, 3, 5, 5), 7, [2, 1]), torch.cat([draws[2], draws[1]]))


@pytest.mark.parametrize("mask", [None, torch.rand(1, 3, 3), torch.rand(2, 6, 5)])
def test_composite_is_what_our_node_does(mask: torch.Tensor | None, tmp_path: Path) -> None:
    below, above = torch.rand(2, 6, 5, 3), torch.rand(1, 4, 4, 3)
    found = extras.names(Folders(*[tmp_path] * 4), NODES, border())["comfy_extras.nodes_mask"]["composite"]
    for place, is_resized in (((2, 3), False), ((0, 0), True), ((9, 9), False)):
        made = found(below.movedim(-1, 1), above.movedim(-1, 1), *place, mask, 1, is_resized).movedim(1, -1)
        layers = {"destination": below, "source": above, "x": place[0], "y": place[1], "resize_source": is_resized}
        assert torch.equal(made, NODES["ImageCompositeMasked"](**layers, mask=mask))
