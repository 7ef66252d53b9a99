"""What a key may keep on disk: bounded for each and in all, told with figures, and nothing half-written stays."""

import asyncio
import errno
import gc
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sigmagraph.engine.server import quota
from sigmagraph.engine.server.own_files import QUOTA
from sigmagraph.engine.server.quota import BLOCK, Bounds, DiskFull, Quota, QuotaReached
from sigmagraph.engine.server.upload_notes import UploadNotes
from tests.server.conftest import Api, Serving
from tests.server.known_keys import FixedKeys, account
from tests.server.stubs import picture_graph

KEYS = FixedKeys({name: account(name) for name in ("ann", "bob")})
MEGABYTE = bytes(1024 * 1024)


def form(part: str, data: bytes, name: str = "a.bin", **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(default_to_multipart=True)
    for key, value in fields.items():
        made.add_field(key, value)
    made.add_field(part, data, filename=name, content_type="application/octet-stream")
    return made


async def sent(api: Api, path: str, data: Any, key: str = "ann") -> tuple[int, str]:
    async with api.client.post(path, data=data, headers={"Authorization": f"Bearer {key}"}) as response:
        return response.status, await response.text()


def files(root: Path) -> dict[Path, int]:
    """Every file but the database's, drafts too."""
    return {p: p.stat().st_size for p in root.rglob("*") if p.is_file() and not p.name.startswith("jobs.sqlite")}


UPLOADS: dict[str, Callable[[str, bytes], tuple[str, Any]]] = {
    "userdata": lambda name, data: (f"/userdata/{name}", data),
    "image": lambda name, data: ("/upload/image", form("image", data, name)),
    "output": lambda name, data: ("/upload/image", form("image", data, name, type="output")),
    "temp": lambda name, data: ("/upload/image", form("image", data, name, type="temp")),
    "asset": lambda name, data: ("/api/v2/assets", form("file", data, name)),
    "editor": lambda name, data: ("/api/assets", form("file", data, name, tags="input")),
}
SETTINGS: dict[str, Any] = {"editor_assets": True, "keys": KEYS}


@pytest.mark.parametrize("way", UPLOADS)
async def test_a_key_keeps_no_more_than_it_may_across_starts_and_deletions_by_hand(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("sigmagraph.engine.server.quota.REST", 0)  # walked again at once, however long it took
    async with serving(max_files_mb=2.5, **SETTINGS) as api:
        for number in range(2):
            assert (await sent(api, *UPLOADS[way](f"{number}.bin", MEGABYTE[number:])))[0] in (200, 201)
    async with serving(max_files_mb=2.5, **SETTINGS) as api:  # the folders say what is there
        before = files(api.root)
        status, said = await sent(api, *UPLOADS[way]("more.bin", MEGABYTE[3:]))
        assert status == 413
        assert "this key keeps 2" in said
        assert "may keep 2621440" in said
        assert files(api.root) == before
        assert (await sent(api, *UPLOADS[way]("more.bin", MEGABYTE[3:]), key="bob"))[0] in (200, 201)
        next(path for path, size in before.items() if size == len(MEGABYTE)).unlink()
        assert (await sent(api, *UPLOADS[way]("more.bin", MEGABYTE[3:])))[0] in (200, 201)


async def test_all_keys_together_keep_no_more_than_they_may(serving: Serving) -> None:
    async with serving(max_files_in_all_mb=2.5, **SETTINGS) as api:
        for key in ("ann", "bob"):
            assert (await sent(api, "/userdata/a.bin", MEGABYTE, key))[0] == 200
    async with serving(max_files_in_all_mb=2.5, **SETTINGS) as api:
        status, said = await sent(api, "/userdata/b.bin", MEGABYTE)
        assert (status, "all keys together keep 2" in said, "may keep 2621440" in said) == (507, True, True)
        assert (await sent(api, "/userdata/a.bin", b"smaller"))[0] == 200  # less is never too much
        assert (await sent(api, "/userdata/b.bin", MEGABYTE, "bob"))[0] == 200


async def test_without_keys_the_disk_is_the_only_bound_and_keeps_a_rest(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    async with serving(max_files_mb=0.01, keep_free_mb=10) as api:
        assert (await sent(api, "/userdata/a.bin", MEGABYTE))[0] == 200
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_500_000))
        for path, data in ((way("b.bin", MEGABYTE)) for way in UPLOADS.values()):
            if path != "/api/assets":
                status, said = await sent(api, path, data)
                assert (status, "10500000 bytes of it are free, of which 10485760 stay so" in said) == (507, True), path
        assert (await sent(api, "/userdata/a.bin", b"x"))[0] == 200
        assert [path.name for path in files(api.root / "input")] == []


async def test_a_saved_workflow_and_an_assets_notes_count_too(serving: Serving) -> None:
    graph = picture_graph() | {"8": {"class_type": "Text", "inputs": {"value": "x" * 40_000}}}
    async with serving(max_files_mb=0.1, **SETTINGS) as api:
        statuses = []
        for _ in range(3):
            headers = {"Authorization": "Bearer ann"}
            async with await api.post("/workflows/w", {"workflow": graph}, headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [201, 201, 413]
        assert (await sent(api, "/userdata/many%2Ffolders%2F" + "a%2F" * 30 + "x", b"x"))[0] == 413  # 32 folders
        assert not list(api.root.rglob("many"))


@pytest.mark.parametrize("way", UPLOADS)
async def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half(
    serving: Serving, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft's write fails, as the kernel has it fail."""
    async with serving(**SETTINGS) as api:
        assert (await sent(api, *UPLOADS[way]("a.bin", b"before")))[0] in (200, 201)
        before, real = files(api.root), Path.open

        def full(path: Path, *args: Any, **options: Any) -> Any:
            file: Any = real(path, *args, **options)
            if path.name.startswith(".draft-"):

                def write(data: bytes) -> int:
                    type(file).write(file, data[: len(data) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")

                return Half(file, write)
            return file

        monkeypatch.setattr(Path, "open", full)
        status, said = await sent(api, *UPLOADS[way]("b.bin", MEGABYTE))
        assert (status, "No space left on device" in said) == (507, True)
        assert files(api.root) == before
        monkeypatch.undo()
        used = api.client.app[QUOTA].used("ann")  # type: ignore[index]
        assert used < 10 * BLOCK  # what did not come is not counted
        assert (await sent(api, *UPLOADS[way]("b.bin", MEGABYTE)))[0] in (200, 201)


class Half:
    """A file whose write fails in the middle."""

    def __init__(self, file: Any, write: Callable[[bytes], int]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> "Half":
        return self

    def fileno(self) -> int:
        return int(self.file.fileno())

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # aiohttp's file of half a part
async def test_a_disk_that_is_full_while_a_form_comes_is_a_507(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with serving(**SETTINGS) as api:
        monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
        for way in ("image", "asset", "editor"):
            status, said = await sent(api, *UPLOADS[way]("b.bin", MEGABYTE))
            assert (status, "No space left on device" in said) == (507, True)
        assert not [line for line in caplog.records if line.exc_info]
        monkeypatch.undo()
        assert (await sent(api, *UPLOADS["image"]("b.bin", MEGABYTE)))[0] == 200
    gc.collect()  # what was not closed warns now, not in another test


async def test_two_owners_who_send_one_name_at_once_each_have_their_own(serving: Serving) -> None:
    async with serving(**SETTINGS) as api:
        data = {key: key.encode() * 1000 for key in ("ann", "bob")}
        rounds = [sent(api, *UPLOADS["image"]("same.png", data[key]), key=key) for key in ("ann", "bob") * 8]
        assert {status for status, _ in await asyncio.gather(*rounds)} == {200}
        for key, content in data.items():
            found = {path.name: path.read_bytes() for path in (api.root / "input/.owners" / key).iterdir()}
            assert found == {"same.png": content}  # the same once more is the same file


def counted(folder: Path, clock: Callable[[], float], each: float = 10 * BLOCK) -> Quota:
    return Quota(
        Bounds(each, None, 0.0), lambda owner: [folder / owner], lambda: (), UploadNotes(folder / "notes"), clock
    )


def test_the_folder_is_not_walked_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks, real = [], quota._bytes_below
    monkeypatch.setattr(quota, "_bytes_below", lambda root: walks.append(root) or real(root))  # type: ignore[func-returns-value]
    now = [0.0]
    held = counted(tmp_path, lambda: now[0], 5000 * BLOCK)
    for number in range(1000):
        now[0] += 1.0
        with held.room("ann", tmp_path / "ann" / str(number), 10):
            (tmp_path / "ann").mkdir(exist_ok=True)
            (tmp_path / "ann" / str(number)).write_bytes(bytes(10))
    assert len(walks) == 1
    assert held.used("ann") == 1001 * BLOCK == real(tmp_path / "ann") + BLOCK  # with its folder
    now[0] += quota.COUNTED_S
    with held.room("ann", tmp_path / "ann/x", 10):
        pass
    assert len(walks) == 2


def test_what_is_under_way_takes_its_room_and_a_failure_gives_it_back(tmp_path: Path) -> None:
    now = [0.0]
    held = counted(tmp_path, lambda: now[0])
    (tmp_path / "ann").mkdir()
    with held.room("ann", tmp_path / "ann/a", 6 * BLOCK):
        now[0] += 1
        with pytest.raises(QuotaReached, match="keeps 24576 bytes"), held.room("ann", tmp_path / "ann/b", 5 * BLOCK):
            raise AssertionError
        with held.room("bob", tmp_path / "bob/b", 5 * BLOCK):
            pass
    with pytest.raises(KeyError), held.room("ann", tmp_path / "ann/b", 4 * BLOCK):
        raise KeyError
    assert held.used("ann") == 6 * BLOCK
    now[0] += 1  # nothing was written at all
    with held.room("ann", tmp_path / "ann/b", 10 * BLOCK):
        pass


def test_the_disk_keeps_what_others_are_about_to_take(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    held = Quota(Bounds(1e18, None, free / 2), lambda owner: [], lambda: (), UploadNotes(tmp_path / "notes"))
    with (
        held.room("ann", tmp_path / "a", free // 3),
        pytest.raises(DiskFull, match="the disk is full"),
        held.room("bob", tmp_path / "b", free // 3),
    ):
        raise AssertionError
    with held.room("bob", tmp_path / "b", free // 3):
        pass
