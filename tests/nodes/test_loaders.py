from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.engine.graph.plan import Plan, plan
from sigmagraph.engine.graph.reading.document import parse_workflow
from sigmagraph.engine.graph.validate import validate
from sigmagraph.nodes import NODES
from sigmagraph.nodes.models.loaders import computing


@pytest.fixture
def folders(home: Path) -> Folders:
    return Folders(home / "models", home / "input", home / "output", home / "temp")


@pytest.mark.parametrize("kind", ["flux2", "wan", "stable_diffusion"])
def test_encoders_of_another_family_are_refused_by_its_name_when_they_are_loaded(folders: Folders, kind: str) -> None:
    node = NODES["CLIPLoader"]
    assert kind in (node.declared["type"].allowed(None) or ())
    (folders.models / "text_encoders").mkdir()
    (folders.models / "text_encoders/x.safetensors").write_bytes(b"")
    with pytest.raises(BadValue, match=rf"type: '{kind}' .* 'sd3': text encoders of other model families"):
        node(clip_name="x.safetensors", type=kind, services=folders)


def test_a_configuration_beside_a_checkpoint_is_not_needed(folders: Folders) -> None:
    folders.extra = {"embeddings": [folders.models / "words"]}
    parts = {"ckpt_name": "tiny.safetensors", "services": folders}
    model, clip, vae = NODES["CheckpointLoader"](config_name="v1-inference.yaml", **parts)
    other, encoders, _ = NODES["CheckpointLoaderSimple"](**parts)
    assert clip.embeddings == encoders.embeddings, "learned words are looked for in the same folders"
    assert model.spec == other.spec
    assert clip is not None
    assert vae is not None
    state = torch.zeros(1, 16, 4, 4)
    conditioning = clip.encode("a")
    assert torch.equal(model.predict(state, 0.5, [conditioning])[0], other.predict(state, 0.5, [conditioning])[0])


def test_models_that_start_from_a_picture_are_refused_by_name(folders: Folders) -> None:
    model, *_ = NODES["CheckpointLoaderSimple"](ckpt_name="tiny.safetensors", services=folders)
    assert NODES["ModelSamplingAuraFlow"](model=model, shift=2.0, sampling="flow").spec == model.spec
    with pytest.raises(BadValue, match="sampling: 'img_to_img_velocity'"):
        NODES["ModelSamplingAuraFlow"](model=model, shift=2.0, sampling="img_to_img_velocity")


def test_an_embedding_file_is_in_the_key_of_every_text_that_may_name_it(folders: Folders) -> None:
    """A conditioning outlives the process on disk: a file that comes or changes later must not find it."""
    texts = {"named": "a cat, embedding:grey", "plain": "a cat", "linked": ["word", 0]}
    document = {
        "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "word": {"class_type": "PrimitiveString", "inputs": {"value": "embedding:grey"}},
    }
    for name, text in texts.items():
        document[name] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": text}}
        document[f"show {name}"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}}

    def keys() -> dict[str, str]:
        made = plan(validate(parse_workflow(document), NODES, folders), folders)
        return {name: made.key(name) for name in texts}

    seen = [keys()]
    (folders.models / "embeddings").mkdir(exist_ok=True)
    for values in (1.0, 2.0):
        save_file({"clip_l": torch.full((2, 8), values)}, folders.models / "embeddings/grey.safetensors")
        seen.append(keys())
    assert [len({found[name] for found in seen}) for name in texts] == [3, 1, 3]


def test_a_text_whose_embedding_changed_after_it_was_planned_is_not_kept(folders: Folders) -> None:
    """Under the key of the file as it was its result would be found by every later run."""
    made = _planned_with_embedding(folders)
    assert made.keys.still_holds("named")
    assert made.keys.fork().still_holds("plain")
    save_file({"clip_l": torch.full((2, 8), 2.0)}, folders.models / "embeddings/grey.safetensors")
    assert not made.keys.fork().still_holds("named")
    assert made.keys.still_holds("plain")


def test_a_link_among_embeddings_that_leads_nowhere_leaves_the_keys_of_texts(folders: Folders) -> None:
    key = _planned_with_embedding(folders).key("named")
    (folders.models / "embeddings/gone.safetensors").symlink_to(folders.models / "nowhere.safetensors")
    made = [_planned_with_embedding(folders) for _ in range(2)]
    assert not any(one.keys.volatile for one in made)
    assert made[0].key("named") == made[1].key("named") != key


def _planned_with_embedding(folders: Folders) -> Plan:
    (folders.models / "embeddings").mkdir(exist_ok=True)
    save_file({"clip_l": torch.full((2, 8), 1.0)}, folders.models / "embeddings/grey.safetensors")
    document = {"load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}}}
    for name, text in {"named": "a cat, embedding:grey", "plain": "a cat"}.items():
        document[name] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": text}}
        document[f"show {name}"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}}
    return plan(validate(parse_workflow(document), NODES, folders), folders)


def test_every_loader_of_a_network_says_what_it_computes_in() -> None:
    """Results on disk are found by the next process, which may have another device or precision."""
    kinds = {"checkpoints", "controlnet", "diffusers", "diffusion_models", "text_encoders", "upscale_models", "vae"}
    kinds |= {"unet_gguf"}
    loaders = [node for node in NODES.values() if any(one.file and one.file.folder in kinds for one in node.inputs)]
    assert len(loaders) > 10
    assert [node.class_type for node in loaders if node.fingerprint is not computing] == []
