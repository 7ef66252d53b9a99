"""Manifests: what is wrong with one is told with file, field and node; a graph becomes one that works."""

import json
import shutil
from pathlib import Path

import pytest

from sigmagraph.engine.compose.manifests import first_manifest, slug_of
from sigmagraph.engine.graph.editor.app_mode import AppInput, AppMode
from sigmagraph.engine.graph.reading.document import load_workflow
from sigmagraph.engine.server.endpoints.endpoint import declaration_problems, load_endpoint, load_endpoints
from sigmagraph.engine.server.endpoints.manifest import BadEndpoint
from sigmagraph.engine.server.endpoints.values import InvalidValues, read_values
from sigmagraph.nodes import NODES as REAL
from tests.server.endpoints.conftest import ENDPOINTS, ROOT
from tests.server.endpoints.stub import NODES
from tests.server.endpoints.test_replies import PAGE_SAMPLERS, PAGE_SCHEDULES

NAME = "stable-diffusion-3.5-turbo-txt2img"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ENDPOINTS, tmp_path / "endpoints"))


def edited(folder: Path, old: str, new: str) -> Path:
    path = folder / f"{NAME}.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return path


@pytest.mark.parametrize("is_demo", [False, True])
def test_the_shipped_manifests_fit_their_graphs(is_demo: bool) -> None:
    found = load_endpoints(ENDPOINTS, is_demo=is_demo)
    assert len(found) == 2
    assert [problem for endpoint in found.values() for problem in declaration_problems(endpoint, NODES)] == []


@pytest.mark.parametrize("is_demo", [False, True])
def test_the_real_nodes_take_every_name_of_the_pages(is_demo: bool) -> None:
    for endpoint in load_endpoints(ENDPOINTS, is_demo=is_demo).values():
        assert declaration_problems(endpoint, REAL) == []
        allowed = endpoint.allowed(REAL, None)
        aliases = endpoint.manifest.parameters["sampler"].aliases
        assert set(PAGE_SAMPLERS) <= {*allowed["sampler"], *aliases}
        assert set(aliases.values()) <= set(allowed["sampler"])
        assert set(PAGE_SCHEDULES) <= set(allowed["scheduler"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"Prompt.text"', '"Promt.text"', "parameters.prompt.binds: no node is called 'Promt'; did you mean 'Prompt'?"),
        ('"KSampler.cfg"', '"KSampler.cgf"', "guidance_scale.binds: node 5 (KSampler) has no input 'cgf' in the graph"),
        ('"KSampler.cfg"', '"KSampler.model"', "node 5 (KSampler).model is a link; bind what it leads to"),
        ('"KSampler.cfg"', '"cfg"', "parameters.guidance_scale.binds: 'cfg'; expected 'TITLE.INPUT'"),
        ('images = "Save"', 'images = "Sav"', "reply.images: no node is called 'Sav'"),
        ("maximum = 70", "maximun = 70", "parameters.steps.maximun: there is no such field; did you mean 'maximum'?"),
        ("default = 4\n", "default = 71\n", "parameters.steps.default: 71 is outside 1 to 70"),
        ("default = 4\n", 'default = "4"\n', "parameters.steps.default: '4' is not an integer"),
        ('type = "integer"', 'type = "int"', "parameters.steps.type: 'int'"),
        ("{ width = 1024", "{ wdth = 1024", "'wdth' is not a parameter; did you mean 'width'?"),
        ('title = "', 'titel = "', "title: is missing"),
        (
            'role = "quality"',
            'role = "batch"',
            "parameters.image_quality.role: 'batch' is played by 'batch_size' already",
        ),
        ('slug = "stable', 'slug = "Stable', "slug: 'Stable"),
        (f'slug = "{NAME}"', 'slug = "get-user-credits"', "is a path of the API itself; choose another"),
        (f'graph = "{NAME}.json"', 'graph = "nothing.json"', "graph: "),
        ("[reply]", "[reply", "is not TOML"),
        ("per_megapixel_step = 0.0025", "per_call = inf", "price.per_call: inf"),
        ("deadline_s = 300.0", "deadline_s = inf", "deadline_s: inf"),
        ("expires_s = 3600.0", "expires_s = 1e12", "expires_s: 1000000000000.0"),
        ("maximum = 15", "maximum = nan", "parameters.guidance_scale.maximum: nan"),
        ("maximum = 2048", "maximum = 63", "parameters.width.minimum: 64 is above maximum 63"),
        ("max_length = 20000", "max_length = 0", "parameters.prompt.min_length: 1 is above max_length 0"),
        ("{ width = 1024,", '{ width = "x",', "sets.1:1 square 1024x1024.width: 'x' is not an integer"),
        ("{ width = 1024,", "{ width = 4096,", "1024x1024.width: 4096 is outside 64 to 2048"),
        ("height = 1024 }", 'height = 1024, image_format = "gif" }', "image_format: 'gif' is not in enum"),
        (
            '"1:1 square 1024x1024" =',
            '"1:1 squar" =',
            "1:1 squar: is not in enum; did you mean '1:1 square 1024x1024'?",
        ),
        ('enum = ["jpeg", "png", "webp"]', "", "parameters.image_format.enum: None; formats are jpeg, png and webp"),
        ('role = "batch"', 'role = "batch"\nnames = ["steps"]', "batch_size.names: 'steps' is 'steps' already"),
    ],
)
def test_a_fault_names_file_field_and_node(folder: Path, old: str, new: str, message: str) -> None:
    path = edited(folder, old, new)
    with pytest.raises(BadEndpoint) as caught:
        load_endpoint(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_binding_of_the_wrong_type_is_found_against_the_nodes(folder: Path) -> None:
    endpoint = load_endpoint(edited(folder, '"KSampler.cfg"', '"KSampler.steps"'))
    assert declaration_problems(endpoint, NODES) == [
        "parameters.guidance_scale.binds: node 5 (KSampler).steps: takes INT, the parameter is a number"
    ]


def test_pictures_of_a_node_that_shows_none_are_found_against_the_nodes(folder: Path) -> None:
    endpoint = load_endpoint(edited(folder, 'images = "Save"', 'images = "Decode"'))
    assert declaration_problems(endpoint, NODES) == [
        "reply.images: node 6 (VAEDecode) is not an output node, such as SaveImage"
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('= "euler_ancestral"', '= "euler_ancestrl"', "sampler.aliases.euler_ancestra: 'euler_ancestrl'"),
        ('example = "dpmpp_2m"', 'example = "dpm"', "sampler.example: 'dpm'"),
        ('"align_your_steps"]', '"align_your_step"]', "scheduler.without: 'align_your_step'"),
    ],
)
def test_names_that_a_nodes_list_does_not_have_are_found_against_the_nodes(
    folder: Path, old: str, new: str, problem: str
) -> None:
    [line] = declaration_problems(load_endpoint(edited(folder, old, new)), NODES)
    assert line.startswith(f"parameters.{problem} is not in the list of KSampler.")


def test_a_seed_may_be_random_by_default(folder: Path) -> None:
    endpoint = load_endpoint(edited(folder, "default = 98552302", "default = -1"))
    body = {"prompt": "x", "sampler": "euler", "scheduler": "normal"}
    seeds = {read_values(endpoint, body, {}).role("seed") for _ in range(3)}
    assert len(seeds) == 3
    assert -1 not in seeds


@pytest.mark.parametrize("size", [-(10**6), 10**12, 10**300])
def test_a_field_without_bounds_has_a_price_that_can_be_refused(folder: Path, size: int) -> None:
    endpoint = load_endpoint(edited(folder, "minimum = 1\nmaximum = 70\n", ""))
    body = {"prompt": "x", "sampler": "euler", "scheduler": "normal", "steps": size}
    assert read_values(endpoint, body, {}).cost() == (0 if -(10**9) < size < 0 else 10**15)


def test_two_manifests_of_one_slug_are_refused(folder: Path) -> None:
    shutil.copy(folder / f"{NAME}.toml", folder / "zz.toml")
    with pytest.raises(BadEndpoint, match="belongs to .* already"):
        load_endpoints(folder)


def test_further_names_of_a_field_are_the_field(folder: Path) -> None:
    endpoint = load_endpoint(edited(folder, 'role = "batch"', 'role = "batch"\nnames = ["samples"]'))
    body = {"prompt": "x", "sampler": "euler", "scheduler": "normal"}
    assert read_values(endpoint, body | {"samples": 3}, {}).all["batch_size"] == 3
    with pytest.raises(InvalidValues, match="is there already"):
        read_values(endpoint, body | {"samples": 3, "batch_size": 2}, {})


def test_the_demo_draws_an_eighth_and_says_so() -> None:
    endpoint = load_endpoints(ENDPOINTS, is_demo=True)[NAME]
    body = {"prompt": "x", "sampler": "euler", "scheduler": "normal", "aspect_ratio": "16:9 landscape 1344x768"}
    values = read_values(endpoint, body, {})
    assert (values.all["width"], values.all["height"]) == (176, 96)
    assert endpoint.bind(values.all, "r").nodes["4"].inputs["width"] == 176


def test_a_graph_becomes_an_endpoint_that_works(tmp_path: Path) -> None:
    workflow = load_workflow(ROOT / "workflows" / "txt2img.json")
    text, graph = first_manifest(workflow, NODES, slug_of("My Graph!"), "My graph")
    (tmp_path / "my-graph.toml").write_text(text, "utf-8")
    (tmp_path / "my-graph.json").write_text(graph, "utf-8")
    endpoint = load_endpoints(tmp_path)["my-graph"]
    assert declaration_problems(endpoint, NODES) == []
    values = read_values(endpoint, {"prompt": "a cat", "steps": 3}, endpoint.allowed(NODES, None))
    bound = endpoint.bind(values.all, "id")
    assert bound.nodes["2"].inputs["text"] == "a cat"
    assert bound.nodes["5"].inputs["steps"] == 3
    assert values.manifest.role("seed") == "seed"
    assert json.loads(graph)["7"]["_meta"]["title"] == "Save"


def test_callers_see_what_the_author_offers_in_app_mode_and_nothing_else(tmp_path: Path) -> None:
    workflow = load_workflow(ROOT / "workflows" / "txt2img.json")
    offered = [
        AppInput("What to draw", ["2.text", "3.text"]),
        AppInput("steps", ["5.steps"]),
        AppInput("gone", ["5.x"]),
    ]
    text, graph = first_manifest(workflow, NODES, "app", "App", AppMode(offered, ["7"]))
    (tmp_path / "app.toml").write_text(text, "utf-8")
    (tmp_path / "app.json").write_text(graph, "utf-8")
    endpoint = load_endpoints(tmp_path)["app"]
    assert list(endpoint.manifest.parameters) == ["what_to_draw", "steps", "image_format", "base64"]
    values = read_values(endpoint, {"what_to_draw": "a cat", "steps": 3}, endpoint.allowed(NODES, None))
    bound = endpoint.bind(values.all, "id")
    assert [bound.nodes[node].inputs[name] for node, name in (("2", "text"), ("3", "text"), ("5", "steps"))] == [
        "a cat",
        "a cat",
        3,
    ]
