"""Fragment shaders of GLSL ES 3.00, read into a tree: declarations, functions, statements, expressions.

The subset that pictures are made with: numbers, vectors, functions, constants, loops, branches. Structures, matrices,
arrays, `switch` and macros are left out, and refused by name and line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sigmagraph.engine.errors import BadValue

__all__ = ["Function", "GlslParameter", "Shader", "parse"]

LONGEST = 100_000  # characters
DEEPEST = 60  # expressions and blocks inside each other
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?[uUfF]?)|([A-Za-z_]\w*)"
    r"|(<<=|>>=|\+\+|--|&&|\|\||\^\^|<<|>>|[-+*/%<>=!&|^]=|[-+*/%<>=!&|^~?:;,.(){}\[\]]))"
)
TYPES = frozenset(
    (
        *("void", "bool", "int", "uint", "float", "sampler2D"),
        *(f"{kind}vec{size}" for kind in ("", "i", "u", "b") for size in (2, 3, 4)),
    )
)
PRECISIONS = frozenset(("highp", "mediump", "lowp"))
LEFT_OUT = frozenset(("struct", "switch", "do", "mat2", "mat3", "mat4", "discard", "sampler3D", "samplerCube"))
LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",), ("^^",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"),
    ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
ASSIGNS = frozenset(("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="))

Tree = tuple[Any, ...]
"""A node: its name, then its parts."""


@dataclass(frozen=True, slots=True)
class GlslParameter:
    """A parameter of a function: `in`, `out` or `inout`, type, name."""

    way: str
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function with its body, a list of statements."""

    type: str
    name: str
    parameters: Sequence[GlslParameter]
    body: Sequence[Tree]


@dataclass(slots=True)
class Shader:
    """What a shader declares. `outputs` are the colours' names by location, `passes` how often it runs.

    Functions of one name differ in their parameters.
    """

    uniforms: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[int, str] = field(default_factory=dict)
    constants: list[Tree] = field(default_factory=list)
    functions: dict[str, list[Function]] = field(default_factory=dict)
    passes: int = 1


def parse(source: str) -> Shader:
    """The tree of a shader; raises `BadValue` with the line of what cannot be read."""
    if len(source) > LONGEST:
        raise BadValue("fragment_shader", f"{len(source):,} characters", f"at most {LONGEST:,}")
    return _Parser(source).shader()


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, source: str) -> None:
        self.made = Shader()
        bare = COMMENT.sub(lambda found: "\n" * found.group().count("\n") or " ", source)
        self.tokens = list(self._tokens(bare))
        self.at = self.depth = 0

    def _tokens(self, source: str) -> Iterator[tuple[str, str, int]]:
        for number, line in enumerate(source.split("\n"), 1):
            if line.lstrip().startswith("#"):
                self._directive(line.strip(), number)
                continue
            at = 0
            while at < len(line.rstrip()):
                found = TOKEN.match(line, at)
                if found is None:
                    raise _refusal(line[at:].strip()[:1], number, "a GLSL ES 3.00 token")
                kind = ("number", "name", "mark")[(found.lastindex or 1) - 1]
                yield kind, found.group(found.lastindex or 1), number
                at = found.end()

    def _directive(self, line: str, number: int) -> None:
        words = line.split()
        if words[0] == "#pragma" and words[1:2] == ["passes"] and len(words) == 3 and words[2].isdigit():
            self.made.passes = int(words[2])
        elif words[0] not in ("#version", "#pragma"):
            raise _refusal(words[0], number, "#version or #pragma; macros are left out")

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end", self._last_line())

    def _last_line(self) -> int:
        return self.tokens[-1][2] if self.tokens else 1

    def _is(self, *texts: str) -> bool:
        return self._now[1] in texts and self._now[0] != "end"

    def _next(self) -> str:
        text = self._now[1]
        self.at += 1
        return text

    def _take(self, text: str) -> bool:
        if self._is(text):
            self.at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise _refusal(self._now[1], self._now[2], repr(text))

    def _name(self) -> str:
        kind, text, line = self._now
        if kind != "name" or text in LEFT_OUT:
            raise _refusal(text, line, "a name")
        return self._next()

    def _type(self) -> str:
        while self._is(*PRECISIONS):
            self.at += 1
        kind, text, line = self._now
        if text not in TYPES:
            raise _refusal(text, line, "a type; structures and matrices are left out" if kind == "name" else "a type")
        return self._next()

    def _begins_declaration(self) -> bool:
        following = self.tokens[self.at + 1][1] if self.at + 1 < len(self.tokens) else ""
        return self._is("const", *PRECISIONS) or (self._now[1] in TYPES and following != "(")

    # -- declarations ----------------------------------------------------------------------------------------------

    def shader(self) -> Shader:
        """Everything up to the end."""
        while self._now[0] != "end":
            self._declaration()
        if "main" not in self.made.functions:
            raise BadValue("fragment_shader", "no function main", "one")
        return self.made

    def _declaration(self) -> None:
        if self._take("precision"):
            self._next()
            self._type()
            self._expect(";")
            return
        location = self._layout()
        for way, table in ("uniform", self.made.uniforms), ("in", self.made.inputs):
            if self._take(way):
                kind = self._type()
                table[self._name()] = kind
                self._expect(";")
                return
        if self._take("out"):
            self._type()
            self.made.outputs[location if location is not None else len(self.made.outputs)] = self._name()
            self._expect(";")
        elif self._is("const"):
            self.made.constants.append(self._variables())
        else:
            self._function_or_variables()

    def _layout(self) -> int | None:
        if not self._take("layout"):
            return None
        self._expect("(")
        self._expect("location")
        self._expect("=")
        location = int(self._next())
        self._expect(")")
        return location

    def _function_or_variables(self) -> None:
        start = self.at
        kind, name = self._type(), self._name()
        if not self._take("("):
            self.at = start
            self.made.constants.append(self._variables())
            return
        parameters: list[GlslParameter] = []
        while not self._take(")"):
            self._take("const")
            way = self._next() if self._is("in", "out", "inout") else "in"
            typed = self._type()
            if typed == "void":
                continue
            parameters.append(GlslParameter(way, typed, self._name()))
            self._take(",")
        if self._take(";"):
            return  # a declaration; its body comes later
        self.made.functions.setdefault(name, []).append(Function(kind, name, parameters, self._block()))

    # -- statements ------------------------------------------------------------------------------------------------

    def _block(self) -> list[Tree]:
        self._expect("{")
        statements = []
        while not self._take("}"):
            if self._now[0] == "end":
                raise _refusal("the end", self._now[2], "'}'")
            statements.append(self._statement())
        return statements

    def _statement(self) -> Tree:
        self._deeper()
        try:
            return self._statement_here()
        finally:
            self.depth -= 1

    def _statement_here(self) -> Tree:
        if self._is("{"):
            return ("block", self._block())
        if self._take(";"):
            return ("block", [])
        if self._take("if"):
            self._expect("(")
            asked = self._expression()
            self._expect(")")
            then = self._statement()
            return ("if", asked, then, self._statement() if self._take("else") else ("block", []))
        if self._take("for"):
            return self._loop()
        if self._take("while"):
            self._expect("(")
            asked = self._expression()
            self._expect(")")
            return ("for", ("block", []), asked, None, self._statement())
        if self._is("break", "continue"):
            word = self._next()
            self._expect(";")
            return (word,)
        if self._take("return"):
            value = None if self._is(";") else self._expression()
            self._expect(";")
            return ("return", value)
        return self._simple()

    def _simple(self) -> Tree:
        if self._begins_declaration():
            return self._variables()
        value = self._expression()
        self._expect(";")
        return ("do", value)

    def _loop(self) -> Tree:
        self._expect("(")
        first = ("block", []) if self._take(";") else self._simple()
        asked = ("number", True, "bool") if self._is(";") else self._expression()
        self._expect(";")
        after = None if self._is(")") else self._expression()
        self._expect(")")
        return ("for", first, asked, after, self._statement())

    def _variables(self) -> Tree:
        self._take("const")
        kind = self._type()
        found = []
        while True:
            line, name = self._now[2], self._name()
            if self._is("["):
                raise _refusal("[", line, "a single value; arrays are left out")
            found.append((name, self._assignment() if self._take("=") else None))
            if not self._take(","):
                break
        self._expect(";")
        return ("variables", kind, found)

    # -- expressions -----------------------------------------------------------------------------------------------

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refusal(self._now[1], self._now[2], f"at most {DEEPEST} levels inside each other")

    def _expression(self) -> Tree:
        value = self._assignment()
        while self._take(","):
            value = ("then", value, self._assignment())
        return value

    def _assignment(self) -> Tree:
        self._deeper()
        try:
            left = self._choice()
            if self._now[0] == "mark" and self._now[1] in ASSIGNS:
                line, mark = self._now[2], self._next()
                return ("assign", mark[:-1], left, self._assignment(), line)
            return left
        finally:
            self.depth -= 1

    def _choice(self) -> Tree:
        asked = self._binary(0)
        if not self._take("?"):
            return asked
        yes = self._expression()
        self._expect(":")
        return ("choose", asked, yes, self._assignment())

    def _binary(self, level: int) -> Tree:
        if level == len(LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._now[0] == "mark" and self._now[1] in LEVELS[level]:
            line, mark = self._now[2], self._next()
            left = ("binary", mark, left, self._binary(level + 1), line)
        return left

    def _unary(self) -> Tree:
        self._deeper()
        try:
            if self._is("-", "+", "!", "~", "++", "--"):
                line, mark = self._now[2], self._next()
                inner = self._unary()
                if mark in ("++", "--"):
                    return ("assign", mark[0], inner, ("number", 1, "int"), line)
                return ("unary", mark, inner, line)
            return self._postfix()
        finally:
            self.depth -= 1

    def _postfix(self) -> Tree:
        value = self._primary()
        while True:
            line = self._now[2]
            if self._take("."):
                value = ("swizzle", value, self._name(), line)
            elif self._take("["):
                index = self._expression()
                self._expect("]")
                value = ("index", value, index, line)
            elif self._is("++", "--"):
                value = ("after", self._next()[0], value, line)
            else:
                return value

    def _primary(self) -> Tree:
        kind, text, line = self._now
        if self._take("("):
            value = self._expression()
            self._expect(")")
            return value
        if kind == "number":
            return _number(self._next())
        if text in ("true", "false"):
            return ("number", self._next() == "true", "bool")
        name = self._name() if text not in TYPES else self._next()
        if not self._take("("):
            return ("name", name, line)
        given = []
        while not self._take(")"):
            given.append(self._assignment())
            if not self._take(",") and not self._is(")"):
                raise _refusal(self._now[1], self._now[2], "',' or ')'")
        return ("call", name, given, line)


def _number(text: str) -> Tree:
    if text[:2].lower() == "0x":
        return ("number", int(text.rstrip("uU"), 16), "uint" if text[-1] in "uU" else "int")
    if text[-1] in "uU":
        return ("number", int(text[:-1]), "uint")
    if text.isdigit():
        return ("number", int(text), "int")
    return ("number", float(text.rstrip("fF")), "float")


def _refusal(found: str, line: int, allowed: str) -> BadValue:
    return BadValue(f"fragment_shader, line {line}", found, allowed)
