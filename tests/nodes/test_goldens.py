"""What ComfyUI 0.3.64's nodes gave for 2,200 inputs, recorded, against what ours give."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sigmagraph.engine.errors import EngineError
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.models.conditioning import Conditioning
from sigmagraph.engine.models.hooks import Keyframe, sorted_keyframes
from sigmagraph.nodes import NODES
from tests.nodes.deviations import RESULTS
from tests.nodes.golden_cases import PICTURES, StubControlNet, content, difference, family, ours, theirs

# how far a value may be off, by node: equal where nothing is named
TOLERANCE = {
    **dict.fromkeys(("ImageInvert", "FeatherMask", "MaskComposite", "Morphology", "ImageRGBToYUV", "InvertMask"), 5e-7),
    **dict.fromkeys(("ImageYUVToRGB", "VAEEncodeForInpaint", "ImageAddNoise"), 5e-7),
    **dict.fromkeys(
        ("ImageBlend", "ImageBatch", "ImageCompositeMasked", "PorterDuffImageComposite", "ImageBlur"), 3e-6
    ),
    **dict.fromkeys(
        ("JoinImageWithAlpha", "InpaintModelConditioning", "ImageStitch", "ImageScaleToMaxDimension"), 3e-6
    ),
    **dict.fromkeys(("ResizeAndPadImage", "ImagePadForOutpaint", "SplitImageWithAlpha"), 3e-6),
    **dict.fromkeys(("ImageSharpen", "LatentApplyOperation"), 1e-5),
}


def ways(name: str) -> list[str]:
    """Every node of a family."""
    return sorted({case["node"] for case in family(name)[0].values()})


def cases(name: str, node: str) -> list[tuple[str, dict[str, Any]]]:
    return [(key, case) for key, case in family(name)[0].items() if case["node"] == node]


def outputs(value: Any, count: int) -> list[Any]:
    return list(value) if count != 1 else [value]


@dataclass
class StubVae:
    """The recordings' autoencoder: a linear map of the means of blocks of 8 x 8 pixels."""

    weight: torch.Tensor
    bias: torch.Tensor

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = (side // 8 * 8 for side in pixels.shape[1:3])
        top, left = (side % 8 // 2 for side in pixels.shape[1:3])
        planes = pixels[:, top : top + height, left : left + width, :3].movedim(-1, 1).double()
        means = torch.nn.functional.avg_pool2d(planes, 8)
        mixed = torch.einsum("ck,bkhw->bchw", self.weight.double(), means) + self.bias.double()[:, None, None]
        return mixed.float()


@dataclass(frozen=True)
class StubClip:
    """The recordings' text encoders."""

    context: torch.Tensor
    pooled: torch.Tensor

    def encode(self, text: str) -> Conditioning:
        return Conditioning(self.context, self.pooled)


def given_as(written: Any, kind: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(written, dict) and "keyframes_from_CreateHookKeyframe" in written:
        return sorted_keyframes(
            Keyframe(start, strength) for strength, start in written["keyframes_from_CreateHookKeyframe"]
        )
    if written == {"stub": "vae"}:
        return StubVae(tensors["stub/vae/weight"], tensors["stub/vae/bias"])
    if isinstance(written, dict) and written.get("stub") == "control":
        return StubControlNet(written["concat_mask"])
    if isinstance(written, dict) and written.get("stub") == "clip":
        return StubClip(*(content(part, tensors) for part in written["encodes_to"]))
    if isinstance(written, dict) and "operation" in written:
        return NODES[written["operation"]](**written["inputs"])
    return ours(content(written, tensors), kind)


def said_otherwise(name: str, key: str, case: dict[str, Any], extra: dict[str, Any]) -> str | None:
    """What a case gives that was not recorded."""
    tensors, node = family(name)[1], NODES[case["node"]]
    types = {one.name: one.type for one in node.inputs}
    inputs = {what: given_as(given, types.get(what, ""), tensors) for what, given in case["inputs"].items()}
    try:
        with torch.inference_mode():
            found = outputs(node(**inputs, **extra), len(node.outputs))
            if "applied twice" in case.get("note", ""):
                sides = [one.name for one in node.inputs if one.type == "CONDITIONING"]
                again = inputs | dict(zip(sides, found, strict=True))
                found = outputs(node(**again, **extra), len(node.outputs))
    except EngineError as error:
        return None if "error" in case else f"{key}: {error}"
    if "error" in case:
        return f"{key}: a result where {case['error']['message']!r} was recorded"
    for slot, (value, recorded) in enumerate(zip(found, case["outputs"], strict=True)):
        kind = node.outputs[slot].type
        expected = content(recorded["content"], tensors)
        if kind == "HOOK_KEYFRAMES":  # recorded as what it holds
            value = {"keyframes": [asdict(one) for one in value]}
        else:
            value, expected = theirs(value, kind), theirs(ours(expected, kind), kind)  # masks of latents have one form
        said = difference(value, expected, TOLERANCE.get(case["node"], 0.0))
        if said is not None:
            return f"{key}, output {slot}: {said}"
    return None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    home = tmp_path_factory.mktemp("goldens")
    for part in ("output", "temp"):
        (home / part).mkdir()
    return Folders(home / "models", PICTURES, home / "output", home / "temp")


OTHERWISE = ("MaskPreview", "PreviewAny", "SaveLatent", "LoadLatent")  # each by a test of its own
FAMILIES = ("mask", "porterduff", "image", "filters", "latent", "conditioning", "strings", "primitives")
LATER = (
    "T5TokenizerOptions",  # its cases are of a stub's table of options
)  # recorded, and not compared
ALIKE = [(name, node) for name in FAMILIES for node in ways(name) if node not in LATER]


@pytest.mark.parametrize(("name", "node"), [pair for pair in ALIKE if pair[1] not in OTHERWISE])
def test_every_recorded_case_gives_what_was_recorded(name: str, node: str, folders: Folders) -> None:
    extra = {"services": folders} if "services" in NODES[node].declared else {}
    differing, _ = RESULTS.get(node, (frozenset(), ""))
    said = {key: said_otherwise(name, key, case, extra) for key, case in cases(name, node)}
    assert {key: why for key, why in said.items() if why is not None and key not in differing} == {}
    assert {key for key, why in said.items() if why is None} & differing == set()


def test_previews_of_masks_are_the_recorded_pictures(folders: Folders) -> None:
    tensors = family("mask")[1]
    for key, case in cases("mask", "MaskPreview"):
        mask = content(case["inputs"]["mask"], tensors)
        shown = NODES["MaskPreview"](mask=mask, prompt=None, extra_pnginfo=None, services=folders).ui["images"]
        found = [np.array(Picture.open(folders.temp_dir / one["filename"])) for one in shown]
        assert (
            difference(
                [torch.from_numpy(one) for one in found], content(case["outputs"][0]["content"], tensors), 0.0, key
            )
            is None
        )
        assert [one["type"] for one in shown] == content(case["ui"], tensors)["images"]


class Odd:
    def __repr__(self) -> str:
        return "<odd object>"


class Unprintable:
    def __str__(self) -> str:
        raise ValueError


OBJECTS = {
    "an object whose repr and str are '<odd object>'": Odd(),
    "an object whose str raises": Unprintable(),
    "the set {3}": {3},
    "bytes": b"ab\0",
    "a complex number": 1 + 2j,
    "numpy.float64, a subclass of float": np.float64(1.5),
    "numpy.float32": np.float32(1.5),
    "numpy.int64": np.int64(3),
    "range(3)": range(3),
}


def test_any_value_is_shown_as_recorded() -> None:
    for key, case in cases("primitives", "PreviewAny"):
        source = content(case["inputs"].get("source"), family("primitives")[1])
        if isinstance(source, dict) and "python_object" in source:
            source = OBJECTS[source["python_object"]]
        shown = NODES["PreviewAny"](source=source).ui
        assert shown == content(case["ui"], {}), key


def test_latents_are_written_and_read_as_recorded(tmp_path: Path) -> None:
    places = Folders(tmp_path / "models", tmp_path, tmp_path, tmp_path)
    tensors = family("latent")[1]
    for key, case in cases("latent", "SaveLatent"):
        inputs = content({"dict": case["inputs"]}, tensors)
        given = inputs | {"samples": ours(inputs["samples"], "LATENT"), "services": places}
        [shown] = NODES["SaveLatent"](**given).ui["latents"]
        assert shown == content(case["ui"], tensors)["latents"][0], key
        path = tmp_path / shown["subfolder"] / shown["filename"]
        held, metadata = (content(one["content"], tensors) for one in case["outputs"])
        with safe_open(path, "pt") as file:
            assert file.metadata() == metadata
        assert difference(load_file(path), held, 0.0, key) is None
    for key, case in cases("latent", "LoadLatent"):
        held = {"latent_tensor": tensors[f"{key}/in/FILE"]}
        save_file(
            held | ({} if "only" in case["note"] else {"latent_format_version_0": torch.tensor([])}),
            tmp_path / "a.latent",
        )
        loaded = theirs(NODES["LoadLatent"](latent="a.latent", services=places), "LATENT")
        assert difference(loaded, content(case["outputs"][0]["content"], tensors), 0.0, key) is None
