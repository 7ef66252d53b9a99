"""A secret is repeated by no error: laws of the one rule, whatever the secret and wherever it stands."""

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue, DuplicateName, EngineError, MissingFile, UnknownName
from sigmagraph.engine.redaction import LONGEST, redacted
from sigmagraph.engine.registry import Registry
from sigmagraph.engine.sampling import SCHEDULES, SOLVERS, find_schedule, find_solver, sdxl

SECRETS = st.text("ABCDEFGHJKabcdefghjk0123456789+/", min_size=8, max_size=60)
PLACES = ("X-Webhook-Secret", "webhook.secret", "webhook secret", "webhook_secret", "Authorization", "X-API-Key")
PLACES += ("api_key_comfy_org", "auth_token_comfy_org", "database password", "Cookie")


@settings(deadline=None, max_examples=50)
@given(SECRETS, st.sampled_from(PLACES))
def test_a_place_called_after_a_secret_tells_the_length_alone(secret: str, place: str) -> None:
    message = str(BadValue(place, secret, "something else"))
    assert message == f"{place}: ({len(secret)} characters, not shown) is not allowed; expected something else"
    assert secret not in str(BadValue(place, [secret], "a string"))


@settings(deadline=None, max_examples=50)
@given(SECRETS)
def test_a_secret_within_another_value_is_not_repeated_either(secret: str) -> None:
    within = (
        {"url": "nowhere", "secret": secret},
        ["http://x", secret],
        json.dumps({"webhook": {"secret": secret}}),
        f"{{'api_key': '{secret}', broken",
        f"secret={secret}",
        f"https://name:{secret}@example.com/",
        f"https://example.com/?token={secret}&a=b",
        f"whsec_{secret}",
    )
    for value in within:
        assert secret not in str(BadValue("webhook", value, "an object")), value


@pytest.mark.parametrize("value", [5, None, True, 1.5, "a\nb", "a secretary", {"a": 1}, ["b"], "max_tokens: 5", ""])
def test_other_values_are_told_as_they_are(value: object) -> None:
    assert redacted("steps", value) == value


@pytest.mark.parametrize("piece", ["://:", "secret ", "whsec_", "?token", "&token", "secret" + " " * 20, "\\u0000"])
def test_a_long_hostile_value_is_read_in_no_time_and_cut(piece: str) -> None:
    began = time.process_time()
    assert len(str(BadValue("a place", piece * 500_000, "another"))) < 20_000
    assert time.process_time() - began < 0.5


LONG = "y" * 1_000_000
UNKNOWN: dict[str, Callable[[], object]] = {
    "sampler": lambda: find_solver(LONG),
    "revision": lambda: find_solver(f"euler@{LONG}"),
    "schedule": lambda: find_schedule(LONG),
    "option": lambda: SOLVERS["euler_ancestral"].checked({LONG: 1}),
    "schedule's option": lambda: SCHEDULES["karras"](sdxl().levels, 4, **{LONG: 1}),
    "value": lambda: SOLVERS["euler_ancestral"].checked({"eta": LONG}),
    "list": lambda: SOLVERS["euler_ancestral"].checked({"eta": [1.0] * 1_000_000}),
    "digits": lambda: SOLVERS["euler_ancestral"].checked({"eta": 10**5000}),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_message_repeats_the_beginning_of_a_long_name_or_value(what: str) -> None:
    with pytest.raises(EngineError) as refused:
        UNKNOWN[what]()
    assert len(str(refused.value)) < 2 * LONGEST + 500  # a place and a value


def test_long_names_and_paths_are_shortened_in_every_error_that_has_one() -> None:
    parts: Registry[int] = Registry("part")
    parts.add(LONG, 1)
    with pytest.raises(DuplicateName) as taken:
        parts.add(LONG, 2)
    for error in (taken.value, UnknownName("part", LONG, ()), MissingFile(LONG, "not there"), BadValue(LONG, 1, "2")):
        assert len(str(error)) < 2 * LONGEST + 500, type(error)
    assert str(UnknownName("part", "y" * 500, ())).count("y") == 500
