"""Webhooks: owed from the moment a job ends, told at least once, under one id, signed."""

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from sigmagraph.engine.errors import BadValue, WorkerLost
from sigmagraph.engine.jobs.job import Job, State, Webhook
from sigmagraph.engine.jobs.settings import StoreSettings
from sigmagraph.engine.jobs.store.job_store import JobStore
from sigmagraph.engine.jobs.webhooks.standard import signature
from sigmagraph.engine.jobs.webhooks.webhooks import ADDRESSES_SHARE, OWNERS_SHARE, Webhooks, is_public
from tests.jobs.test_store import WORK, Time, opened, submission

SECRET = "whsec_" + base64.b64encode(bytes(range(200, 232))).decode()
Runs = Callable[[Coroutine[Any, Any, Any]], Any]


class Receiver:
    """Answers with the statuses given, then 200; an exception is raised."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, bytes, dict[str, str]]] = []

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.got.append((url, body, dict(headers)))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


def told(job: Job) -> dict[str, Any]:
    return {"job_id": job.id, "state": job.state}


async def ended(store: JobStore, state: State = State.SUCCEEDED, url: str = "https://a.example/x") -> None:
    await store.submit(submission(job_id="x", webhook=Webhook(url, SECRET)), WORK)
    await store.begin("x", "w")
    await store.end("x", state)


async def until(store: JobStore, webhooks: Webhooks, attempts: int) -> None:
    while (await webhooks.of("x"))[0].attempts < attempts:
        await asyncio.sleep(0.01)


def served(store: JobStore, receiver: Receiver, waits_s: Sequence[float] = (1.0, 10.0)) -> Webhooks:
    webhooks = Webhooks(store, receiver, told, waits_s)
    webhooks.start()
    return webhooks


def test_an_end_is_told_once_signed_and_with_its_id(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings, clock=Time()) as (store, _):
            await ended(store, State.FAILED)
            receiver = Receiver()
            webhooks = served(store, receiver)
            await until(store, webhooks, 1)
            webhooks.look()
            await asyncio.sleep(0.05)
            delivery = (await webhooks.of("x"))[0]
            await webhooks.stop()
        [(url, body, headers)] = receiver.got
        assert url == "https://a.example/x"
        said = {"id": delivery.id, "type": "job.failed", "timestamp": "1970-01-01T00:16:40.000Z"}
        assert json.loads(body) == said | {"data": {"job_id": "x", "state": "failed"}}
        assert (headers["Webhook-Id"], headers["Webhook-Timestamp"]) == (delivery.id, "1000")
        assert headers["Webhook-Signature"] == signature(SECRET, delivery.id, 1000, body)
        assert (delivery.delivered_at, delivery.next_at) == (1000.0, None)

    run(case())


def test_words_that_cannot_be_found_are_a_try_that_failed_and_the_next_one_is_made(
    run: Runs, store_settings: StoreSettings
) -> None:
    missing = [KeyError("filename")]

    def words(job: Job) -> dict[str, Any]:
        if missing:
            raise missing.pop()
        return told(job)

    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            await ended(store)
            webhooks = Webhooks(store, receiver := Receiver(), words, (1.0, 10.0))
            webhooks.start()
            await until(store, webhooks, 1)
            assert "filename" in (await webhooks.of("x"))[0].log[0].problem
            clock.now += 1
            webhooks.look()
            await until(store, webhooks, 2)
            await webhooks.stop()
        assert [json.loads(body)["data"]["state"] for _, body, _ in receiver.got] == ["succeeded"]

    run(case())


@pytest.mark.parametrize("size", [24, 32, 64])
def test_the_standards_own_verifier_accepts_what_is_signed_and_nothing_else(size: int) -> None:
    secret, now, body = "whsec_" + base64.b64encode(bytes(range(size))).decode(), int(time.time()), b'{"a":"\xc3\xa4"}'
    signed = signature(secret, "d-1", now, body)
    headers = {"Webhook-Id": "d-1", "Webhook-Timestamp": str(now), "Webhook-Signature": signed}
    verifier = Verifier(secret)
    assert verifier.verify(body, headers) == {"a": "\u00e4"}
    for bent in ({"Webhook-Id": "d-2"}, {"Webhook-Timestamp": str(now - 1)}, {"Webhook-Timestamp": str(now - 400)}):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, headers | bent)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body + b" ", headers)


@pytest.mark.parametrize(
    "secret", ["plain", "whsec_", "whsec_####", SECRET[6:], "whsec_" + "A" * 28, "whsec_" + "A" * 88, SECRET + "\n"]
)
def test_a_secret_of_another_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(BadValue, match=r"webhook secret: \(\d+ characters, not shown\).*whsec_ and 24 to 64 random"):
        Webhook("https://a.example", secret)


def test_a_receiver_that_is_gone_is_asked_no_more(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings, clock=Time()) as (store, _):
            await ended(store)
            webhooks = served(store, Receiver(410))
            await until(store, webhooks, 1)
            delivery = (await webhooks.of("x"))[0]
            await webhooks.stop()
        assert (delivery.next_at, delivery.delivered_at, delivery.attempts) == (None, None, 1)

    run(case())


@pytest.mark.parametrize(("url", "secret"), [("https://a/\ud800", ""), ("https://a/\0", ""), ("https://a", "\udc80")])
def test_an_address_or_secret_no_database_can_hold_is_refused_before_a_job_owes_it(url: str, secret: str) -> None:
    with pytest.raises(BadValue, match="webhook"):
        Webhook(url, secret)


@pytest.mark.parametrize(
    "url",
    ["http:///x", "https://", "http://[", "http://[::1", "http://exa mple/", "https://a:99999/", "https://a:b", "x"],
)
def test_an_address_that_names_nobody_is_refused_before_a_job_owes_it(url: str) -> None:
    with pytest.raises(BadValue, match=r"webhook url.*https://example.com"):
        Webhook(url)


def test_what_fails_is_tried_again_later_under_the_same_id_then_given_up(
    run: Runs, store_settings: StoreSettings
) -> None:
    async def case() -> None:
        clock = Time()
        async with opened(store_settings, clock=clock) as (store, _):
            await ended(store)
            receiver = Receiver(500, ConnectionError("refused"), WorkerLost("no"))
            webhooks = served(store, receiver)
            await until(store, webhooks, 1)
            assert (await webhooks.of("x"))[0].next_at == 1001.0
            for tries, later in ((2, 1), (3, 10)):
                clock.now += later
                webhooks.look()
                await until(store, webhooks, tries)
            delivery = (await webhooks.of("x"))[0]
            await webhooks.stop()
        assert [(attempt.status, attempt.problem) for attempt in delivery.log] == [
            (500, ""),
            (None, "refused"),
            (None, "no"),
        ]
        assert (delivery.next_at, delivery.delivered_at) == (None, None)
        assert len({headers["Webhook-Id"] for _, _, headers in receiver.got}) == 1

    run(case())


def test_what_a_killed_server_owed_is_delivered_by_the_next(run: Runs, store_settings: StoreSettings) -> None:
    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await ended(store)
        async with opened(store_settings) as (store, _):
            receiver = Receiver()
            webhooks = served(store, receiver)
            await until(store, webhooks, 1)
            await webhooks.stop()
        assert len(receiver.got) == 1

    run(case())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::8.8.8.8", True),
        ("2002:a00:1::1", False),
        ("2002:808:808::1", True),
        ("::10.0.0.1", False),
        ("::ffff:0:10.0.0.1", False),
        ("fec0::1", False),
        ("::", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("example.com", False),
    ],
)
def test_private_addresses_are_told_apart(address: str, expected: bool) -> None:
    assert is_public(address) is expected


def test_the_documented_check_accepts_what_was_sent_and_nothing_else(run: Runs, store_settings: StoreSettings) -> None:
    text = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    is_genuine = names["is_genuine"]

    async def case() -> None:
        async with opened(store_settings) as (store, _):
            await ended(store)
            receiver = Receiver()
            webhooks = served(store, receiver)
            await until(store, webhooks, 1)
            await webhooks.stop()
        [(_, body, headers)] = receiver.got
        assert is_genuine(SECRET, headers, body)
        assert not is_genuine("whsec_" + "A" * 32, headers, body)
        assert not is_genuine(SECRET, headers, body + b" ")
        assert not is_genuine(SECRET, {**headers, "Webhook-Timestamp": "1"}, body)

    run(case())


def test_a_receiver_that_never_answers_keeps_nobody_else_waiting(run: Runs, store_settings: StoreSettings) -> None:
    """Of 20 to one address, and 20 to an address each, only so many are under way; others' are told meanwhile."""
    flying: Counter[str] = Counter()
    seen: list[str] = []

    async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        owner = url.split("/")[3]
        if owner == "well":
            seen.append(json.loads(body)["data"]["job_id"])
            return 200
        flying[owner] += 1
        assert flying[owner] <= {"one": ADDRESSES_SHARE, "many": OWNERS_SHARE}[owner]
        await asyncio.sleep(60)
        raise AssertionError

    async def case() -> None:
        async with opened(store_settings) as (store, _):
            names = [(owner, f"{owner}{at}") for owner in ("one", "many", "well") for at in range(20)]
            for owner, name in names:
                url = f"https://a.example/{owner}/{name if owner == 'many' else ''}"
                await store.submit(submission(job_id=name, owner=owner, webhook=Webhook(url, SECRET)), WORK)
                await store.begin(name, "w")
                await store.end(name, State.SUCCEEDED)
            webhooks = Webhooks(store, post, told, (1.0,))
            webhooks.start()
            async with asyncio.timeout(10):
                while len(seen) < 20:
                    await asyncio.sleep(0.01)
            await webhooks.stop()
        assert sorted(seen) == sorted(name for owner, name in names if owner == "well")
        assert flying == {"one": ADDRESSES_SHARE, "many": OWNERS_SHARE}

    run(case())


@pytest.mark.parametrize("passes", range(5))
def test_a_stop_that_comes_with_news_is_a_stop(run: Runs, store_settings: StoreSettings, passes: int) -> None:
    """A delivery that lands while the server stops: the waiting was over, and the stop with it."""

    async def case() -> None:
        async with opened(store_settings) as (store, _):
            webhooks = served(store, Receiver())
            await asyncio.sleep(0.05)
            webhooks.look()
            for _ in range(passes):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await webhooks.stop()

    run(case())
