import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmagraph.engine.errors import BadValue
from sigmagraph.engine.execution.folders import Folders
from sigmagraph.nodes import NODES
from sigmagraph.nodes.support import patterns
from sigmagraph.nodes.support.lengths import MAX_CHARACTERS

FLAGS = {"case_insensitive": False, "multiline": False, "dotall": False}


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){25}b", r"([a-z]+)*\d"])
def test_an_expression_that_would_take_years_ends_by_its_limit(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LIMIT_S", 0.3)
    text = "a" * 5000 + "!"
    calls = {
        "RegexMatch": {},
        "RegexExtract": {"mode": "All Matches", "group_index": 0},
        "RegexReplace": {"replace": "x", "count": 0},
    }
    for name, extra in calls.items():
        begun = time.monotonic()
        with suppress(BadValue):  # some of these the search does quickly; all end
            NODES[name](string=text, regex_pattern=pattern, **FLAGS, **extra)
        assert time.monotonic() - begun < 3


def test_a_search_beyond_its_limit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LIMIT_S", 0.05)
    with pytest.raises(BadValue, match=r"searches this string within 0.05 s"):
        NODES["RegexMatch"](string="a" * 5000 + "!", regex_pattern=r"(a|aa)+$", **FLAGS)


def test_a_string_that_would_fill_the_memory_is_refused() -> None:
    long = "a" * (MAX_CHARACTERS // 2)
    with pytest.raises(BadValue, match="at most 10,000,000"):
        NODES["StringReplace"](string=long, find="a", replace="b" * 1000)
    with pytest.raises(BadValue, match="at most 10,000,000"):
        NODES["StringConcatenate"](string_a=long, string_b=long, delimiter="--")
    with pytest.raises(BadValue, match="at most 10,000,000"):
        NODES["RegexReplace"](string=long[:100_000], regex_pattern="a", replace=r"\g<0>" * 200, **FLAGS, count=0)


@pytest.mark.parametrize("pattern", ["(" * 9000, "(a" * 4000 + ")" * 4000, "[", "a{2,1}", "(?P<1>a)"])
def test_a_pattern_that_is_none_is_refused_or_matches_nothing(pattern: str) -> None:
    with pytest.raises(BadValue):
        NODES["RegexReplace"](string="a", regex_pattern="x" * 20_000, replace="", **FLAGS, count=0)
    assert NODES["RegexMatch"](string="a", regex_pattern=pattern, **FLAGS) is False


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.text(alphabet="ab c\n`{[", max_size=12), st.dictionaries(st.text(max_size=3), values, max_size=4), st.text())
def test_the_first_object_in_a_text_gives_its_keys(before: str, held: dict[str, object], after: str) -> None:
    text = before + json.dumps(held) + after
    if before.count("{"):
        return  # then an earlier brace may begin an object of its own
    for key, value in held.items():
        found = NODES["JsonExtractString"](json_string=text, key=key)
        assert found == ("" if value is None else str(value))
    assert NODES["JsonExtractString"](json_string=text, key="not there") == ""


@pytest.mark.parametrize("text", ["", "{" * 200_000, '{"a": ' * 50_000, "[1, 2]", '{"a": 1'])
def test_a_text_without_an_object_gives_nothing_and_ends(text: str) -> None:
    assert NODES["JsonExtractString"](json_string=text, key="a") == ""


def test_json_strings_keep_letters_and_indent_by_choice() -> None:
    array, dictionary = NODES["ConvertArrayToString"], NODES["ConvertDictionaryToString"]
    assert array(array=[1, "é"], indent=0) == '[1, "é"]'
    assert dictionary(dictionary={"a": [1]}, indent=2) == '{\n  "a": [\n    1\n  ]\n}'
    with pytest.raises(BadValue, match="what JSON can hold"):
        dictionary(dictionary={"a": object()})


@pytest.mark.parametrize(
    ("text", "kind", "written"),
    [
        ("a\nü", "txt", "a\nü"),
        ('{"a":[1]}', "json", '{\n  "a": [\n    1\n  ]\n}'),
        ("{no", "json", "{no"),
        ("x,y", "csv", "x,y"),
    ],
)
def test_a_string_is_saved_under_the_next_number(tmp_path: Path, text: str, kind: str, written: str) -> None:
    folders = Folders(tmp_path, tmp_path, tmp_path, tmp_path)
    for number in (1, 2):
        result = NODES["SaveText"](text=text, filename_prefix="notes/n", format=kind, services=folders)
        assert result.value == text
        [shown] = result.ui["files"]
        assert shown == {"filename": f"n_0000{number}_.{kind}", "subfolder": "notes", "type": "output"}
        assert (tmp_path / "notes" / shown["filename"]).read_text("utf-8") == written
    with pytest.raises(BadValue, match="inside the output folder"):
        NODES["SaveText"](text="x", filename_prefix="../../x", format="txt", services=folders)


@pytest.mark.parametrize("pattern", ["(?V1)a", "(?aL)a", "(?P<n", "a{99999999999}"])
def test_what_only_our_library_or_nobody_reads_is_a_broken_pattern(pattern: str) -> None:
    assert NODES["RegexMatch"](string="a", regex_pattern=pattern, **FLAGS) is False
    with pytest.raises(BadValue, match="a regular expression"):
        NODES["RegexReplace"](string="a", regex_pattern=pattern, replace="b", **FLAGS)
