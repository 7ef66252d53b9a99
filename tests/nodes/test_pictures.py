import json
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin, Image

from sigmagraph.engine.errors import MissingFile, UnreadableImage
from sigmagraph.nodes.support import pictures
from sigmagraph.nodes.support.pictures import png_bytes, read_picture


def test_saved_values_are_cut_off_not_rounded(tmp_path: Path) -> None:
    values = torch.tensor([0.0, 0.999 / 255, 1.0 / 255, 254.999 / 255, 1.0, 1.5, -0.5])
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(values[None, :, None].repeat(1, 1, 3), {}))
    with Image.open(path) as picture:
        assert [picture.getpixel((x, 0))[0] for x in range(7)] == [0, 0, 1, 254, 255, 255, 0]  # type: ignore[index]


def test_text_chunks_are_json_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    image, text = torch.rand(8, 8, 3), {"prompt": {"1": {"class_type": "Größe"}}, "workflow": {"nodes": []}}
    data = png_bytes(image, text)
    assert data == png_bytes(image.clone(), dict(text))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with Image.open(path) as picture:
        assert {key: json.loads(value) for key, value in picture.text.items()} == text  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_every_common_mode_reads_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    image, _ = read_picture(path)
    assert image.shape == (1, 2, 3, 3)
    assert image.min() == 1.0


def test_a_picture_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: runs.append(given))
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(UnreadableImage, match="kind"):
        read_picture(path)
    assert not runs


def test_transparency_becomes_the_mask(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (255, 0, 0, 51))
    picture.save(tmp_path / "a.png")
    image, mask = read_picture(tmp_path / "a.png")
    assert image[0, 0].tolist() == [[1, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(mask, torch.tensor([[[0.0, 0.8]]]))


def test_a_transparent_palette_colour_becomes_the_mask(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.gif", transparency=1)
    assert read_picture(tmp_path / "a.gif")[1].tolist() == [[[0.0, 1.0]]]


def test_without_transparency_the_mask_is_blank_and_64_wide(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    assert torch.equal(read_picture(tmp_path / "a.png")[1], torch.zeros(1, 64, 64))


def test_sixteen_bit_greys_keep_their_precision(tmp_path: Path) -> None:
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 65535)
    picture.putpixel((1, 0), 32768)
    picture.save(tmp_path / "a.png")
    torch.testing.assert_close(read_picture(tmp_path / "a.png")[0][0, 0, :, 1], torch.tensor([1.0, 32768 / 65535]))


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg")[0].shape == (1, 4, 2, 3)


def test_the_frames_of_an_animation_are_a_batch(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), (shade, shade, shade)) for shade in (0, 255, 0)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    image, mask = read_picture(tmp_path / "a.png")
    assert image[:, 0, 0, 0].tolist() == [0, 1, 0]
    assert len(mask) == 3


def test_a_picture_beyond_the_limit_is_refused_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 199)
    with pytest.raises(UnreadableImage, match=r"too large \(20 x 10\); at most 199 pixels"):
        read_picture(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UnreadableImage, match="too large"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"no picture", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImage):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UnreadableImage):
        read_picture(path)


def test_a_picture_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_picture(tmp_path / "a.png")
