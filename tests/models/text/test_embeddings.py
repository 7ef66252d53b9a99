"""Textual inversion: mentions in prompts against recorded chunks, vectors through real encoders."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigmagraph.engine.errors import CorruptFile, RefusedFile
from sigmagraph.engine.models import Checkpoint, Clip
from sigmagraph.engine.models.text.embeddings import Embeddings, Vector, pieces
from sigmagraph.engine.models.text.encode import weighted
from sigmagraph.engine.models.text.tokenizer import Chunk, Tokenizer, clip_rule, t5_rule
from tests.models.conftest import Unpack
from tests.models.text.test_tokens import TOKENS, clip_vocabulary, t5_vocabulary

MENTIONING = ["emb_start", "emb_mid", "emb_weight", "emb_missing", "emb_glued"]


@pytest.fixture
def tiny(unpack: Unpack, tmp_path: Path) -> Embeddings:
    folder = tmp_path / "embeddings" / "sub"
    folder.mkdir(parents=True)
    (folder / "tiny_ti.safetensors").write_bytes(unpack("tiny_ti.safetensors").read_bytes())
    return Embeddings([tmp_path / "embeddings"])


def told(chunks: tuple[Chunk, ...], rows: dict[bytes, int]) -> list[list[list[object]]]:
    """Chunks in the recording's notation: a vector as ["emb", width, row]."""
    return [
        [
            [
                ["emb", token.values.shape[0], rows[token.values.numpy().tobytes()]]
                if isinstance(token, Vector)
                else token,
                weight,
            ]
            for token, weight in chunk
        ]
        for chunk in chunks
    ]


@pytest.mark.parametrize("name", MENTIONING)
def test_mentions_become_the_recorded_chunks(tiny: Embeddings, unpack: Unpack, name: str) -> None:
    stored = load_file(unpack("tiny_ti.safetensors")).values()
    rows = {row.float().numpy().tobytes(): i for tensor in stored for i, row in enumerate(tensor)}
    text = TOKENS[name]["text"]
    for short, encoder in (("l", "clip_l"), ("g", "clip_g")):
        rule = clip_rule(49408, 77, pads_with_end=short == "l")
        assert told(Tokenizer(clip_vocabulary(), rule, tiny.finder(encoder))(text), rows) == TOKENS[name][short]
    t5 = Tokenizer(t5_vocabulary(), t5_rule(77), tiny.finder("t5xxl"))
    assert told(t5(text), rows) == TOKENS[name]["t5xxl"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ["plain"]),
        ("", []),
        ("embedding:known", [("V",)]),
        ("a embedding:known b", ["a", ("V",), "b"]),
        ("a\nembedding:known\nb", ["a", ("V",), "b"]),
        ("embedding:known,, b", [("V",), ",, b"]),
        ("embedding:other b", ["b"]),
        ("embedding:other, b", [", b"]),
        ("embedding:", []),
        ("embedding: known", [("V",)]),
        ("embedding:known embedding:known", [("V",), ("V",)]),
        ("xembedding:known", ["xembedding:known"]),
    ],
)
def test_a_text_is_cut_at_its_mentions(text: str, expected: list[object]) -> None:
    known = ("V",)
    assert pieces(text, lambda name: known if name == "known" else None) == expected  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", ["tiny_ti", "tiny_ti.safetensors", "sub/tiny_ti"])
def test_a_file_is_found_below_the_folder_with_or_without_suffix(tiny: Embeddings, name: str) -> None:
    found = tiny.finder("clip_l")(name)
    assert found is not None
    assert [vector.values.shape for vector in found] == [(768,), (768,)]


@pytest.mark.parametrize("name", ["../tiny_ti", "tiny", "*", "sub", "/sub/tiny_ti"])
def test_other_names_are_not_found(tiny: Embeddings, name: str) -> None:
    assert tiny.finder("clip_l")(name) is None


@pytest.mark.parametrize("rows", [torch.tensor(1.0), torch.zeros(2, 0), torch.zeros(0, 64)])
def test_an_embedding_without_vectors_is_corrupt(tmp_path: Path, rows: Tensor) -> None:
    save_file({"clip_l": rows}, tmp_path / "bad.safetensors")
    with pytest.raises(CorruptFile, match="its clip_l is of shape .*; vectors were expected"):
        Embeddings([tmp_path]).finder("clip_l")("bad")


def test_a_pickled_embedding_is_refused(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(1, 768)}}, tmp_path / "old.pt")
    with pytest.raises(RefusedFile, match="safetensors files only"):
        Embeddings([tmp_path]).finder("clip_l")("old")


@pytest.mark.parametrize(
    ("encoder", "table"),
    [
        ("clip_l", "embeddings.token_embedding.weight"),
        ("clip_g", "embeddings.token_embedding.weight"),
        ("t5xxl", "shared.weight"),
    ],
)
def test_a_vector_equal_to_a_tokens_embedding_gives_that_tokens_states(
    checkpoint: Checkpoint, encoder: str, table: str
) -> None:
    assert checkpoint.clip is not None
    network = checkpoint.clip.encoders[encoder]
    row = Vector(network.recipe.network.state_dict()[table][7].clone())
    length = 12 if network.rule.start is None else network.rule.chunk_length or 77
    chunk = list(network.rule.empty(length))
    as_id, as_vector = [*chunk], [*chunk]
    as_id[1], as_vector[1] = (7, 1.3), (row, 1.3)
    ours, expected = weighted(network, (tuple(as_vector),)), weighted(network, (tuple(as_id),))
    torch.testing.assert_close(ours.hidden, expected.hidden, rtol=0, atol=1e-6)


def test_vectors_of_another_width_are_dropped_and_padding_fills_the_end(checkpoint: Checkpoint) -> None:
    assert checkpoint.clip is not None
    network = checkpoint.clip.encoders["clip_l"]
    end = network.rule.end
    start, middle = (end - 1, 1.0), (7, 1.0)
    foreign = (Vector(torch.zeros(5)), 1.0)
    rest = ((end, 1.0),) * 73
    with_foreign = weighted(network, ((start, foreign, foreign, middle, *rest),))
    without = weighted(network, ((start, middle, *rest, (end, 1.0), (end, 1.0)),))
    assert torch.equal(with_foreign.hidden, without.hidden)


def test_the_embeddings_folder_beside_the_models_is_used(
    tmp_path: Path, checkpoint: Checkpoint, unpack: Unpack
) -> None:
    (tmp_path / "models" / "embeddings").mkdir(parents=True)
    save_file({"clip_l": torch.ones(2, 64)}, tmp_path / "models" / "embeddings" / "mine.safetensors")
    found = Embeddings.beside([tmp_path / "models" / "checkpoints" / "x.safetensors"])
    assert checkpoint.clip is not None
    clip = Clip(
        {"clip_l": checkpoint.clip.encoders["clip_l"]},
        {"clip_l": lambda text: [9] * len(text.split())},
        embeddings=found,
    )
    ((start, first, second, word, *_),) = clip.tokenize("embedding:mine word")["clip_l"]
    assert isinstance(first[0], Vector)
    assert isinstance(second[0], Vector)
    assert (start[0], word[0]) == (254, 9)
