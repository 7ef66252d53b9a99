"""A secret is repeated by no error: laws of the one rule, whatever the secret and wherever it stands."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.redaction import redacted

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
