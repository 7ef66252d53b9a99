"""What packs import from ComfyUI's modules does what it says, or says what is missing when it is used."""

import asyncio
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sigmagraph.engine.compose.packs import load_custom_nodes
from sigmagraph.engine.compose.shims import absent, arithmetic, devices, extras, helpers, sampling, serving
from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack, shim_modules
from sigmagraph.engine.execution.packs.shims import install
from sigmagraph.engine.models.load import load_checkpoint
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support.borders import border
from tests.serving import CHECKOUT

USES = """
import comfy.utils, comfy.sample, comfy.samplers, comfy.model_management as mm, comfy.latent_formats
import folder_paths, latent_preview, node_helpers, nodes
from comfy.cli_args import args
from comfy.clip_vision import Output
from comfy.controlnet import ControlNet, T2IAdapter
from comfy.ldm.modules.attention import optimized_attention
from comfy_extras.nodes_mask import MaskComposite
from comfy_extras.nodes_model_merging import CheckpointSave
from nodes import CLIPVisionEncode, common_ksampler, ImageScale
from server import BinaryEventTypes, PromptServer


@PromptServer.instance.routes.get("/mine")
async def mine(request):
    return None


class Patched(ControlNet):
    pass


class Adapted(T2IAdapter):
    pass


assert args.listen and args.lowvram is False and mm.vram_state is mm.VRAMState.NORMAL_VRAM
assert folder_paths.folder_names_and_paths["checkpoints"][0][0].endswith("checkpoints")
assert ImageScale.upscale_methods and "KSampler" in nodes.NODE_CLASS_MAPPINGS
folder_paths.folder_names_and_paths["mine"] = ([folder_paths.models_dir + "/mine"], {".safetensors"})
assert not isinstance(object(), Output)


class Uses:
    RETURN_TYPES = ("INT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": (comfy.samplers.KSampler.SAMPLERS,)}}

    def go(self, model):
        return (len(folder_paths.get_filename_list("mine")),)


NODE_CLASS_MAPPINGS = {"Uses": Uses}
"""


def folders(root: Path) -> Folders:
    for name in ("models", "models/mine", "input", "output", "temp", "packs"):
        (root / name).mkdir(parents=True)
    return Folders(root / "models", root / "input", root / "output", root / "temp")


def test_a_pack_that_imports_all_kinds_of_names_loads(tmp_path: Path) -> None:
    own = folders(tmp_path)
    (tmp_path / "models/mine/a.safetensors").write_text("")
    (tmp_path / "packs/uses.py").write_text(USES, encoding="utf-8")
    (tmp_path / "packs/wants.py").write_text("from comfy.utils import something_new\n", encoding="utf-8")
    heard: list[Pack] = []
    nodes = load_custom_nodes([tmp_path / "packs"], own, heard.append)
    assert heard[0].problems == ()
    assert "something_new" in heard[1].problems[0]
    assert "docs/packs.md" in heard[1].problems[0]
    assert nodes["Uses"](model="euler") == (1,)


def test_a_reload_leaves_a_module_as_packs_have_made_it(tmp_path: Path) -> None:
    modules = shim_modules(Folders(tmp_path, tmp_path, tmp_path, tmp_path))
    take_away = install(modules)
    try:
        module: Any = importlib.import_module("comfy.utils")
        module.added = 1
        assert importlib.reload(module) is module
        assert (module.added, module.ProgressBar) == (1, modules["comfy.utils"].ProgressBar)
    finally:
        take_away()


def test_packs_call_built_in_nodes_by_their_methods_in_comfyuis_order(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path, tmp_path)
    nodes = extras.names(folders, NODES, border())["nodes"]
    latent, image = {"samples": torch.ones(1, 4, 2, 2)}, torch.zeros(1, 4, 4, 3)
    mask = torch.rand(1, 16, 16)
    [made] = nodes["SetLatentNoiseMask"]().set_mask(latent, mask)
    assert torch.equal(made["noise_mask"].reshape(mask.shape), mask)
    assert torch.equal(nodes["ImageInvert"]().invert(image)[0], 1 - image)
    [[[context, _]]] = nodes["ConditioningZeroOut"]().zero_out([[torch.ones(1, 2, 3), {"pooled_output": None}]])
    assert not context.any()
    loaded = load_checkpoint(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors")
    clip, vae = (border().translations[wire].out(part) for wire, part in (("CLIP", loaded.clip), ("VAE", loaded.vae)))
    [[[context, _]]] = nodes["CLIPTextEncode"]().encode(clip, "a boat")
    assert torch.equal(context, clip.encode("a boat"))
    [found] = nodes["VAEEncode"]().encode(vae, torch.zeros(1, 16, 16, 3))
    assert torch.equal(nodes["VAEDecode"]().decode(vae, found)[0], vae.decode(found["samples"]))
    assert torch.equal(nodes["VAEDecode"].execute(samples=found, vae=vae)[0], vae.decode(found["samples"]))
    saved = nodes["SaveImage"]().save_images(image, "made", prompt=None, extra_pnginfo=None)
    assert (tmp_path / saved["ui"]["images"][0]["filename"]).is_file()
    assert nodes["PreviewImage"]().save_images(image)["ui"]["images"]


def test_an_object_of_a_node_that_is_not_here_can_be_made_and_not_called() -> None:
    made = absent.absent_node("nodes.CLIPVisionEncode")()
    with pytest.raises(absent.NotHere, match=r"the node nodes\.CLIPVisionEncode of ComfyUI is not part"):
        made.encode("picture")


MAKES = """
import inspect, os
import folder_paths, nodes
from comfy import utils
from server import PromptServer

for beside in (inspect.getfile(PromptServer), inspect.getfile(nodes.KSampler), nodes.__file__, utils.__file__):
    os.makedirs(os.path.join(os.path.dirname(beside), "made"), exist_ok=True)
os.listdir(folder_paths.get_input_directory())
NODES = []
"""


def test_folders_that_packs_make_beside_comfyuis_files_are_made_in_the_home(tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs/makes.py").write_text(MAKES)
    home, told = tmp_path / "home", list[Pack]()
    folders = Folders(home / "models", home / "input", home / "output", home / "temp")
    load_custom_nodes([tmp_path / "packs"], folders, told.append)
    assert [pack.problems for pack in told] == [()]
    made = [path.relative_to(home).as_posix() for path in home.rglob("made")]
    assert sorted(made) == ["comfy/made", "made"]


def test_what_is_not_here_can_be_derived_from_and_says_its_name_when_it_is_used() -> None:
    missing = absent.names()["comfy.controlnet"]["T2IAdapter"]
    derived = type("Mine", (missing,), {})
    for made in (missing, derived, missing.anything.below):
        with pytest.raises(absent.NotHere, match=r"comfy\.controlnet\.T2IAdapter.* is not part of this engine"):
            made(1, two=3)
    assert not isinstance(missing, missing)


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (17, 33)])
def test_tiles_that_do_nothing_give_the_picture_back_and_are_counted(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, dtype=torch.float64).float()
    tiles: list[Tensor] = []

    def keep(tile: Tensor) -> Tensor:
        tiles.append(tile)
        return tile

    made = arithmetic.tiled_scale(picture, keep, tile_x=16, tile_y=16, overlap=4, upscale_amount=1)
    torch.testing.assert_close(made, picture, atol=1e-6, rtol=0)
    assert len(tiles) == arithmetic.get_tiled_scale_steps(size[1], size[0], 16, 16, 4)


def test_batches_repeat_cut_and_blend() -> None:
    numbers = torch.arange(3.0).reshape(3, 1)
    assert arithmetic.repeat_to_batch_size(numbers, 5).flatten().tolist() == [0, 1, 2, 0, 1]
    assert arithmetic.repeat_to_batch_size(numbers, 2).flatten().tolist() == [0, 1]
    assert arithmetic.resize_to_batch_size(numbers, 5).flatten().tolist() == [0, 0.5, 1, 1.5, 2]
    assert arithmetic.resize_to_batch_size(torch.arange(5.0), 3).tolist() == [0, 2, 4]


def test_names_of_a_state_dict_are_replaced_by_prefix_and_one_by_one() -> None:
    state: dict[str, Any] = {"a.x": 1, "a.y": 2, "b.z": 3}
    assert arithmetic.state_dict_prefix_replace(dict(state), {"a.": "c."}, filter_keys=True) == {"c.x": 1, "c.y": 2}
    assert arithmetic.state_dict_key_replace(dict(state), {"b.z": "q"}) == {"a.x": 1, "a.y": 2, "q": 3}


def test_prompt_weights_and_escapes_are_those_of_our_encoder() -> None:
    escaped = arithmetic.escape_important(r"(a:1.5) b \(c\)")
    assert [(text, round(weight, 4)) for text, weight in arithmetic.token_weights("(a:1.5) b", 1.0)] == [
        ("a", 1.5),
        (" b", 1.0),
    ]
    assert arithmetic.unescape_important(escaped) == "(a:1.5) b (c)"


def test_latent_formats_are_each_others_inverse() -> None:
    latent = torch.randn(1, 16, 2, 2)
    made = arithmetic.names()["comfy.latent_formats"]["SD3"]()
    torch.testing.assert_close(made.process_out(made.process_in(latent)), latent)
    torch.testing.assert_close(made.process_in(torch.zeros(1)), torch.tensor([-0.0609 * 1.5305]))


def test_noise_is_the_seeds_and_places_in_the_batch_pick_it() -> None:
    latent = torch.zeros(3, 4, 2, 2)
    whole = sampling.prepare_noise(latent, 5)
    torch.testing.assert_close(whole, torch.randn(3, 4, 2, 2, generator=torch.manual_seed(5)))
    assert torch.equal(sampling.prepare_noise(latent[:2], 5, [2, 0]), whole[[2, 0]])


def test_an_ancestral_step_keeps_the_variance_and_attention_is_softmax() -> None:
    down, up = sampling.get_ancestral_step(2.0, 1.0)
    assert math.isclose(down**2 + up**2, 1.0)
    assert sampling.get_ancestral_step(2.0, 1.0, eta=0.0) == (1.0, 0.0)
    q, k, v = (torch.randn(1, 3, 8) for _ in range(3))
    expected = torch.softmax(q[..., :4] @ k[..., :4].mT / 2, -1) @ v[..., :4]
    torch.testing.assert_close(sampling.attention(q, k, v, 2)[..., :4], expected)


def test_samplers_of_k_diffusions_form_are_ours_and_levels_those_of_our_schedules() -> None:
    from sigmagraph.engine.sampling import edm, find_schedule

    names = sampling.names()["comfy.k_diffusion.sampling"]
    levels = edm().levels
    for name, sigmas in (("karras", names["get_sigmas_karras"]), ("exponential", names["get_sigmas_exponential"])):
        expected = find_schedule(name)(levels, 6)
        torch.testing.assert_close(sigmas(6, levels.sigma_min, levels.sigma_max), torch.tensor(expected))
    sigmas = names["get_sigmas_karras"](40, 0.01, 10.0)
    x = torch.full((1, 1, 2, 2), 10.0)
    made = names["sample_heun"](lambda x, sigma: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2), x, sigmas, disable=True)
    torch.testing.assert_close(made, x / math.sqrt(1 + 10.0**2), rtol=2e-2, atol=0)  # the exact path of unit data


def test_conditioning_values_are_set_or_added_to_and_the_given_entries_stay() -> None:
    given = [[torch.zeros(1), {"a": [1], "b": 2}]]
    assert helpers.conditioning_set_values(given, {"a": [3]}, append=True)[0][1] == {"a": [1, 3], "b": 2}
    assert helpers.conditioning_set_values(given, {"a": [3]})[0][1]["a"] == [3]
    assert given[0][1] == {"a": [1], "b": 2}


def test_alpha_is_cut_or_added_so_that_pictures_have_equally_many_channels() -> None:
    three, four = torch.rand(1, 2, 2, 3), torch.rand(1, 2, 2, 4)
    assert helpers.image_alpha_fix(three, four)[1].shape[-1] == 3
    added = helpers.image_alpha_fix(four, three)[1]
    assert torch.equal(added[..., 3], torch.ones(1, 2, 2))


def test_messages_and_routes_of_packs_go_nowhere() -> None:
    server = serving.PromptServer.instance
    server.send_sync("mine", {"a": 1})
    asyncio.run(server.send_json("mine", {"a": 1}))
    assert server.client_id is None


def test_devices_are_ours_and_packs_move_no_folder(tmp_path: Path) -> None:
    names = devices.names()["comfy.model_management"]
    assert names["text_encoder_device"]() == names["vae_device"]()
    assert names["dtype_size"](torch.bfloat16) == 2
    from sigmagraph.engine.execution.packs.paths import folder_paths

    offered = folder_paths(folders(tmp_path))
    with pytest.raises(PermissionError, match="only the operator"):
        offered["set_output_directory"]("/")
    assert offered["annotated_filepath"]("a.png [temp]") == ("a.png", "temp")
    assert json.dumps(offered["supported_pt_extensions"], default=sorted) == '[".safetensors"]'


def test_packs_save_checkpoints_that_load_again(tmp_path: Path) -> None:
    parts, crossing = load_checkpoint(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors"), border()
    folders = Folders(tmp_path / "models", tmp_path / "in", tmp_path / "out", tmp_path / "temp")
    save = extras.names(folders, NODES, crossing)["comfy_extras.nodes_model_merging"]["save_checkpoint"]
    held = {name: crossing.translations[name.upper()].out(getattr(parts, name)) for name in ("model", "clip", "vae")}
    save(held["model"], filename_prefix="alone", output_dir=str(tmp_path / "out"))
    (written,) = (tmp_path / "out").glob("alone_*.safetensors")
    names = load_file(written).keys()
    assert names
    assert all(name.startswith("model.diffusion_model.") for name in names)
    with pytest.raises(BadValue, match="save_checkpoint's parts: 'vae'"):
        save(held["model"], vae=held["vae"], filename_prefix="half")
    with pytest.raises(BadValue, match="output_dir"):
        save(held["model"], filename_prefix="away", output_dir=str(tmp_path))


def test_packs_set_a_shift_by_the_methods_they_know(tmp_path: Path) -> None:
    model = load_checkpoint(CHECKOUT / "models/checkpoints/sigmagraph-demo.safetensors").model
    folders, crossing = Folders(tmp_path, tmp_path, tmp_path, tmp_path), border()
    classes = extras.names(folders, NODES, crossing)["comfy_extras.nodes_model_advanced"]
    held = crossing.translations["MODEL"].out(model)
    for name, method in (("ModelSamplingAuraFlow", "patch_aura"), ("ModelSamplingSD3", "patch")):
        (changed,) = getattr(classes[name](), method)(held, 1.75)
        assert crossing.translations["MODEL"].back(changed).parameterisation.levels.shift == 1.75
