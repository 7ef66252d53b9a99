import contextlib
import json
import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sigmagraph.engine.errors import BadDocument
from sigmagraph.engine.graph.reading.document import read_workflow
from sigmagraph.engine.graph.reading.image_metadata import carried_texts, kind_of

PROMPT = {"1": {"class_type": "Any", "inputs": {"text": "größe 図 \u2028"}}}
MAKE, MODEL, COMMENT = 0x010F, 0x0110, 0x9286


def picture(kind: str, texts: dict[int, str]) -> bytes:
    image = Image.new("RGB", (3, 2))
    exif = image.getexif()
    for tag, text in texts.items():
        exif[tag] = text
    buffer = BytesIO()
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def png(**texts: str) -> bytes:
    chunks = PngInfo()
    for name, text in texts.items():
        chunks.add_itxt(name, text)
    buffer = BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "AVIF"])
def test_workflows_are_read_from_exif_texts(kind: str) -> None:
    data = picture(kind, {MAKE: "workflow:" + json.dumps({"nodes": []}), MODEL: "prompt:" + json.dumps(PROMPT)})
    assert kind_of(data) == kind.lower()
    assert set(carried_texts(data)) == {"workflow", "prompt"}
    workflow = read_workflow(data)
    assert workflow.prompt() == PROMPT
    assert workflow.editor == {"nodes": []}


def test_keywords_may_be_capitalised() -> None:
    assert "prompt" in carried_texts(picture("WEBP", {MODEL: "Prompt: {}"}))


def test_both_byte_orders_and_user_comments_are_read() -> None:
    for order in "<>":
        text = 'prompt:{"1": {}}'
        comment = b"UNICODE\0" + text.encode("utf-16-le" if order == "<" else "utf-16-be")
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
        inner = struct.pack(f"{order}HHHII", 1, COMMENT, 7, len(comment), 44) + bytes(4)
        outer = struct.pack(f"{order}HHHII", 1, 0x8769, 4, 1, 26) + bytes(4)
        tiff = head + outer + inner + comment
        webp = b"RIFF" + struct.pack("<I", 12 + len(tiff)) + b"WEBPEXIF" + struct.pack("<I", len(tiff)) + tiff
        assert carried_texts(webp) == {"prompt": '{"1": {}}'}


def test_a_picture_without_texts_is_refused_by_name() -> None:
    for data in (picture("WEBP", {}), picture("JPEG", {}), png(other="x")):
        with pytest.raises(BadDocument, match="carries no workflow"):
            read_workflow(data)


def test_a_ring_of_directories_ends() -> None:
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4)
    webp = b"RIFF" + struct.pack("<I", 12 + len(tiff)) + b"WEBPEXIF" + struct.pack("<I", len(tiff)) + tiff
    assert carried_texts(webp) == {}


@pytest.mark.parametrize(
    ("tiff", "message"),
    [
        (b"nothing like it", "begins as no TIFF"),
        (b"II*\0" + struct.pack("<I", 2**31), "leads out"),
        (b"II*\0" + struct.pack("<IH", 8, 60_000), "60000 entries"),
        (b"II*\0" + struct.pack("<IHHHII", 8, 1, MAKE, 2, 2**31, 8), "beyond the structure"),
    ],
)
def test_lying_exif_is_refused_in_words(tiff: bytes, message: str) -> None:
    webp = b"RIFF" + struct.pack("<I", 12 + len(tiff)) + b"WEBPEXIF" + struct.pack("<I", len(tiff)) + tiff
    with pytest.raises(BadDocument, match=message):
        carried_texts(webp)


def test_a_stale_tag_beside_a_whole_text_is_left_out_and_said() -> None:
    entries = struct.pack("<HHII", MODEL, 2, 2**31, 8) + struct.pack("<HHII", MAKE, 2, 17, 38)
    tiff = b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4) + b'prompt:{"1": {}}\0'
    warnings: list[str] = []
    assert carried_texts(webp(tiff), warnings.append) == {"prompt": '{"1": {}}'}
    assert warnings == ["EXIF: tag 0x0110 claims a string of 2147483648 bytes beyond the structure; left out"]


def webp(*structures: bytes) -> bytes:
    body = b"".join(
        b"EXIF" + struct.pack("<I", len(structure)) + structure + b"\0" * (len(structure) % 2)
        for structure in structures
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def test_entries_that_share_one_long_text_are_read_up_to_a_limit_also_where_it_is_empty() -> None:
    entries, length = 1000, 100_000
    begin = 8 + 2 + 12 * entries + 4
    directory = struct.pack("<H", entries) + struct.pack("<HHII", MAKE, 2, length, begin) * entries + bytes(4)
    with pytest.raises(BadDocument, match="bytes of text"):
        carried_texts(webp(b"II*\0" + struct.pack("<I", 8) + directory + bytes(length)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0abCd" + bytes(4)) * 100_001,
        b"RIFF" + bytes(4) + b"WEBP" + (b"abcd" + bytes(4)) * 100_001,
        b"\xff\xd8" + b"\xff\xe2\0\2" * 100_001,
    ],
)
def test_endless_pieces_are_refused(data: bytes) -> None:
    with pytest.raises(BadDocument, match="more than 100000"):
        carried_texts(data)


def test_of_several_exif_structures_the_first_is_read() -> None:
    one, other = (
        b"II*\0" + struct.pack("<IHHHII", 8, 1, MAKE, 2, 20, 26) + bytes(4) + text
        for text in (b'prompt:{"1": {}}\0\0\0\0', b'prompt:{"2": {}}\0\0\0\0')
    )
    assert carried_texts(webp(one, other)) == {"prompt": '{"1": {}}'}
    segments = (b"Exif\0\0" + structure for structure in (one, other))
    jpeg = b"\xff\xd8" + b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment for segment in segments)
    assert carried_texts(jpeg) == {"prompt": '{"1": {}}'}


SEEDS = [
    picture("WEBP", {MAKE: 'workflow:{"nodes":[]}', MODEL: 'prompt:{"1":{}}'}),
    picture("JPEG", {MAKE: 'workflow:{"nodes":[]}', MODEL: 'prompt:{"1":{}}'}),
    png(prompt='{"1": {"class_type": "A", "inputs": {}}}', workflow='{"nodes": []}'),
]


@settings(max_examples=500, deadline=None)
@given(data=st.data(), seed=st.sampled_from(SEEDS))
def test_a_damaged_picture_is_read_or_refused_and_never_anything_else(data: st.DataObject, seed: bytes) -> None:
    damaged = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(8, len(damaged)))
    with contextlib.suppress(BadDocument):
        read_workflow(bytes(damaged[:cut]))


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b""]),
    rest=st.binary(max_size=400),
)
def test_any_bytes_are_read_or_refused(head: bytes, rest: bytes) -> None:
    with contextlib.suppress(BadDocument):
        read_workflow(head + rest)


# -- drawings and latents ---------------------------------------------------------------------------------------------


def svg(text: str, head: str = "") -> bytes:
    return f'{head}<svg xmlns="http://www.w3.org/2000/svg"><metadata>{text}</metadata><path d="M0"/></svg>'.encode()


def latent(**texts: str) -> bytes:
    header = {"latent_tensor": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": texts}
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + bytes(4)


@pytest.mark.parametrize("head", ["", '<?xml version="1.0"?>\n'])
def test_an_svg_carries_its_workflow_as_metadata(head: str) -> None:
    body = json.dumps({"prompt": PROMPT, "workflow": json.dumps({"nodes": []})})
    data = svg(f"<![CDATA[{body}]]>", head)
    assert kind_of(data) == "svg"
    assert read_workflow(data).prompt() == PROMPT
    assert carried_texts(svg("words")) == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (svg("&b;", '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>'), "document type"),
        (svg("<![CDATA[{]]>"), "not JSON"),
        (svg("")[:-3], "SVG"),
        (b"<svg>" + b"<g>" * 300 + b"</g>" * 300 + b"</svg>", "nested"),
        (b'<?xml version="1.0" encoding="klingon"?><svg/>', "SVG"),
    ],
    ids=["entities", "no JSON", "cut", "deep", "encoding"],
)
def test_hostile_drawings_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadDocument, match=reason):
        carried_texts(data)


def test_a_latent_carries_its_workflow_as_metadata() -> None:
    data = latent(prompt=json.dumps(PROMPT), format="pt")
    assert kind_of(data) == "tensors"
    assert read_workflow(data).prompt() == PROMPT
    with pytest.raises(BadDocument, match="header"):
        carried_texts(struct.pack("<Q", 2) + b"{[")


CARRIERS = {
    "avif": picture("AVIF", {MODEL: "prompt:" + json.dumps(PROMPT)}),
    "svg": svg("<![CDATA[" + json.dumps({"prompt": PROMPT}) + "]]>"),
    "latent": latent(prompt=json.dumps(PROMPT)),
}


@pytest.mark.parametrize("kind", CARRIERS)
@settings(max_examples=150, deadline=1000)
@given(damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 3000))
def test_damaged_carriers_are_read_or_refused(kind: str, damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(CARRIERS[kind])
    for at, value in damage:
        data[at % len(data)] = value
    with contextlib.suppress(BadDocument):
        read_workflow(bytes(data[: max(1, len(data) - cut % len(data))]))
