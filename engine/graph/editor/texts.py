"""The rewriting of texts the editor does when it makes a prompt: choices in braces, comments, names in prefixes."""

import random
import re
from collections.abc import Callable, Sequence
from datetime import datetime

SAVED = ("Image", "AnimatedWEBP", "WEBM", "Audio", "GLB", "AnimatedPNG", "Latent")
SAVERS = frozenset((*(f"Save{kind}" for kind in SAVED), "CLIPSave", "VAESave", "ModelSave", "LoraSave"))
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
TOKEN = re.compile(r"%([^%]+)%")
UNSAFE = re.compile(r"[/?<>\\:*|\"\x00-\x1f\x7f]")
DATE_PARTS = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "hh": "%H", "mm": "%M", "ss": "%S"}
DATE_WORD = re.compile("yyyy|yy|MM|M|dd|d|hh|h|mm|m|ss|s")
Choose = Callable[[Sequence[str]], str]


def dynamic_prompt(text: str, choose: Choose = random.choice) -> str:
    r"""Comments removed, `{a|b|c}` replaced by one choice (braces may nest), `\{ \} \|` by the bare character."""
    text = COMMENT.sub("", text)
    stack: list[list[str]] = [[""]]
    at = 0
    while at < len(text):
        character = text[at]
        if character == "\\" and text[at + 1 : at + 2] in ("{", "}", "|"):
            at += 1
            stack[-1][-1] += text[at]
        elif character == "{":
            stack.append([""])
        elif character == "|" and len(stack) > 1:
            stack[-1].append("")
        elif character == "}" and len(stack) > 1:
            options = stack.pop()
            stack[-1][-1] += choose(options)
        else:
            stack[-1][-1] += character
        at += 1
    unclosed = ["{" + "|".join(options) for options in stack[1:]]
    return stack[0][0] + "".join(unclosed)


def file_prefix(text: str, look_up: Callable[[str, str], str | None], now: datetime) -> str:
    """`%Node.widget%` and `%date:FORMAT%` replaced; what nothing answers stays for the server to replace."""

    def replaced(match: re.Match[str]) -> str:
        token = match.group(1)
        if token.startswith("date:"):
            return format_date(token.removeprefix("date:"), now)
        node, dot, widget = token.rpartition(".")
        value = look_up(node, widget) if dot else None
        return UNSAFE.sub("_", value) if value is not None else match.group(0)

    return TOKEN.sub(replaced, text)


def format_date(pattern: str, now: datetime) -> str:
    """yyyy, MM, dd, hh, mm, ss, and single letters without the leading zero."""

    def part(match: re.Match[str]) -> str:
        word = match.group(0)
        code = DATE_PARTS.get(word) or DATE_PARTS[word * 2]
        return now.strftime(code) if word in DATE_PARTS else str(int(now.strftime(code)))

    return DATE_WORD.sub(part, pattern)
