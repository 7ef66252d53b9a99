import importlib
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.execution.packs import Pack, load_packs, shim_modules
from sigmagraph.engine.execution.packs.loader import code_digest
from sigmagraph.engine.execution.packs.node_typing import AnyType
from sigmagraph.engine.execution.packs.shims import install
from sigmagraph.engine.graph.comfy.comfy_class import Border, Translation, from_class
from sigmagraph.engine.graph.comfy.comfy_facade import as_class
from tests.execution.running import Stage, with_nodes
from tests.graph.small import NODES, prompt


def test_a_pack_that_fails_to_import_is_reported_with_its_line_and_the_others_load(packs: dict[str, Pack]) -> None:
    assert packs["broken"].nodes == {}
    assert packs["broken"].problems == ("RuntimeError: this pack needs a library nobody has (__init__.py:1)",)
    assert len(packs["rules"].nodes) > 25


def test_packs_are_listed_with_the_digest_of_their_code(packs: dict[str, Pack]) -> None:
    assert str(packs["rules"]).startswith(f"rules [{packs['rules'].digest}]: ")
    assert packs["rules"].nodes["P.Concat"].revision == packs["rules"].digest


def test_the_digest_follows_the_code(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/__init__.py").write_text("a = 1\n", encoding="utf-8")
    before = code_digest(tmp_path / "p")
    (tmp_path / "p/__init__.py").write_text("a = 2\n", encoding="utf-8")
    assert code_digest(tmp_path / "p") != before


def test_a_node_knows_where_its_pack_has_it_written(packs: dict[str, Pack]) -> None:
    assert packs["rules"].nodes["P.Concat"].source == "basics.py, class Concat"
    assert {node.source for node in NODES.values()} == {""}


def test_a_class_that_cannot_describe_itself_is_left_out_and_named(packs: dict[str, Pack], tmp_path: Path) -> None:
    code = (
        "class A:\n    FUNCTION = 'go'\n    def INPUT_TYPES():\n        return 1/0\n    def go(self):\n        pass\n"
    )
    (tmp_path / "odd.py").write_text(code + "NODE_CLASS_MAPPINGS = {'A': A}\n", encoding="utf-8")
    (tmp_path / "old.py.disabled").write_text("boom", encoding="utf-8")
    (pack,) = load_packs([tmp_path], {})
    assert pack.problems == ("A: ZeroDivisionError: division by zero",)


def test_the_offered_names_are_importable(packs: dict[str, Pack]) -> None:
    names = {
        "comfy_execution.graph_utils": ("GraphBuilder", "is_link"),
        "comfy_execution.graph": ("ExecutionBlocker",),
        "comfy.utils": ("ProgressBar",),
        "comfy.comfy_types": ("IO", "ComfyNodeABC", "InputTypeDict"),
        "comfy.comfy_types.node_typing": ("IO", "ComfyNodeABC", "InputTypeDict"),
        "comfy_api.v0_0_2": ("ComfyAPI", "ComfyAPISync"),
        "folder_paths": ("get_filename_list", "get_full_path", "get_output_directory"),
        "comfy.model_management": ("processing_interrupted", "throw_exception_if_processing_interrupted"),
    }
    for module, wanted in names.items():
        assert set(wanted) <= set(dir(importlib.import_module(module))), module


def test_further_names_are_added_to_the_shim_modules(tmp_path: Path) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path, tmp_path)
    made = shim_modules(folders, {"comfy.samplers": {"SAMPLERS": ["euler"]}, "comfy.utils": {"load": len}})
    assert made["comfy.samplers"].SAMPLERS == ["euler"]
    assert made["comfy"].samplers is made["comfy.samplers"]
    assert made["comfy.utils"].load is len
    assert made["comfy.utils"].ProgressBar is not None


def test_making_the_shim_modules_imports_no_tensor_library(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from sigmagraph.engine.execution.packs import shim_modules;"
        "from sigmagraph.engine.execution.folders import Folders; shim_modules(Folders(*[Path('.')] * 4));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_paths_outside_are_refused_in_the_names_packs_use(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input/a.png").write_bytes(b"a")
    folders = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    module: Any = shim_modules(folders)["folder_paths"]
    assert module.exists_annotated_filepath("a.png")
    assert module.get_annotated_filepath("x.png [output]") == str(tmp_path / "output/x.png")
    with pytest.raises(ValueError, match="inside the folder"):
        module.get_annotated_filepath("../a.png")
    folder, name, counter, subfolder, prefix = module.get_save_image_path("sub/pic_%width%", str(tmp_path), 64, 32)
    assert (folder, name, counter, subfolder, prefix) == (str(tmp_path / "sub"), "pic_64", 1, "sub", "sub/pic_64")
    (tmp_path / "sub/pic_64_00007_.png").write_bytes(b"")
    assert module.get_save_image_path("sub/pic_64", str(tmp_path))[2] == 8
    (tmp_path / "_00003_.png").touch()
    assert module.get_save_image_path("", str(tmp_path)) == (str(tmp_path), "", 4, "", "")
    assert module.get_save_image_path("sub/", str(tmp_path)) == (str(tmp_path / "sub"), "", 1, "sub", "sub/")
    years = {str(now.year) for now in (datetime.now(), datetime.now() + timedelta(minutes=1))}
    assert module.get_save_image_path("%year%_%other%", str(tmp_path))[1] in {f"{year}_%other%" for year in years}


@pytest.mark.parametrize("folder", ["..", "../", "", ".", "checkpoints/..", "/"])
def test_a_model_folder_that_a_pack_names_lies_below_the_models(tmp_path: Path, folder: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"a")
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    (tmp_path / "models/secret.safetensors").write_bytes(b"a")
    folders = Folders(tmp_path / "models", tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    module: Any = shim_modules(folders)["folder_paths"]
    assert module.get_full_path(folder, "secret.safetensors") is None
    for ask in (module.get_filename_list, module.get_folder_paths):
        with pytest.raises(ValueError, match="a name inside the folder"):
            ask(folder)
    with pytest.raises(ValueError, match="a name inside the folder"):
        module.add_model_folder_path(folder, str(tmp_path))


def test_the_wildcard_type_fits_everything_and_unions_fit_by_their_members() -> None:
    differs = [AnyType("*") != "IMAGE", AnyType("INT,FLOAT") != "INT", AnyType("INT,FLOAT") != "STRING"]
    assert differs == [False, False, True]


class Doubles:
    """Works on the convention's form of a value."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "go"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # the convention's name
        return {"required": {"latent": ("LATENT", {})}}

    def go(self, latent: dict[str, Any]) -> tuple[dict[str, Any]]:
        latent["samples"] = latent["samples"] * 2
        return (latent,)


BORDER = Border({"LATENT": Translation(lambda value: {"samples": value}, lambda value: value["samples"])})


def test_values_are_translated_at_the_border_both_ways() -> None:
    made = from_class(Doubles, "Doubles", border=BORDER)
    assert made.reads is not None
    assert made.reads(made(latent=4)).values == (8,)


def test_a_watching_border_fails_the_node_that_edits_its_input(packs: dict[str, Pack]) -> None:
    edits = from_class(
        sys.modules["custom_nodes.rules"].NODE_CLASS_MAPPINGS["P.Edits"], "Edits", border=Border(watches=True)
    )
    makes = packs["rules"].nodes["P.MakesList"]
    stage = Stage(with_nodes(edits, makes))
    result = stage.run(
        prompt(m=("P.MakesList", {"value": 1}), e=("Edits", {"items": ["m", 0]}), s=("Show", {"value": ["e", 0]}))
    )
    assert "the node changed its input 'items' in place (its length); copy it first" in str(result.error)


def test_our_nodes_can_be_called_as_classes_of_the_convention() -> None:
    adds: Any = as_class(NODES["Add"], None, Border())
    assert adds.INPUT_TYPES()["required"]["b"] == ("INT", {"default": 1, "min": -1000, "max": 1000})
    assert getattr(adds(), adds.FUNCTION)(a=1, b=2) == (3,)
    shows: Any = as_class(NODES["Show"], None, Border())
    assert shows().run(value=5) == {"ui": {"shown": [5]}, "result": ()}


def test_the_shims_are_modules_of_their_own_and_go_again(tmp_path: Path) -> None:
    theirs = ModuleType("folder_paths")
    first, second = (shim_modules(Folders(tmp_path / name, tmp_path, tmp_path, tmp_path)) for name in "ab")
    before = sys.modules.get("folder_paths")
    sys.modules["folder_paths"] = theirs
    try:
        take_first, take_second = install(first), install(second)
        assert sys.modules["folder_paths"] is second["folder_paths"]
        assert vars(theirs).keys() == vars(ModuleType("folder_paths")).keys()
        take_second()
        assert sys.modules["folder_paths"] is first["folder_paths"]
        take_first()
        assert sys.modules["folder_paths"] is theirs
    finally:
        del sys.modules["folder_paths"]
        if before is not None:
            sys.modules["folder_paths"] = before
