"""The language of targets and filters, such as `0.5 < band_gap < 2.0 and elements has Ga, As`.

What a user writes becomes conditions on known fields and nothing else; the stores translate conditions into queries.
"""

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, lru_cache
from numbers import Real
from typing import NoReturn

from wyloop.models.errors import TargetError
from wyloop.models.wyckoff.tables import CRYSTAL_SYSTEMS, space_group

NUMERIC_FIELDS: Mapping[str, str] = {
    "band_gap": "eV",
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "space_group_number": "1",
    "nelements": "1",
    "nsites": "1",
    "volume_per_atom": "Å^3",
    "lowest_optical_frequency": "THz",
}
"""Numeric field to its unit; an imaginary frequency is negative."""
TEXT_FIELDS = ("crystal_system", "formula_pretty", "chemsys")
FIELDS = (*NUMERIC_FIELDS, *TEXT_FIELDS, "elements")
INTEGER_FIELDS = frozenset({"space_group_number", "nelements", "nsites"})
MAX_TEXT_LENGTH = 2000  # characters; longer texts are refused unread

_SYMBOLS = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo
    Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl
    Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"""
ELEMENTS = frozenset(_SYMBOLS.split())


@dataclass(frozen=True)
class Condition:
    """A numeric field within a range; an open end is `None`."""

    field: str
    low: float | None = None
    high: float | None = None
    low_inclusive: bool = True
    high_inclusive: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """The condition as the language writes it."""
        low, high = self.low, self.high
        if low is not None and low == high:
            return (f"{self.field} = {_number_text(low)}",)
        if low is not None and high is not None:
            less = ("<=" if self.low_inclusive else "<", "<=" if self.high_inclusive else "<")
            return (f"{_number_text(low)} {less[0]} {self.field} {less[1]} {_number_text(high)}",)
        if low is not None:
            return (f"{self.field} {'>=' if self.low_inclusive else '>'} {_number_text(low)}",)
        if high is not None:
            return (f"{self.field} {'<=' if self.high_inclusive else '<'} {_number_text(high)}",)
        return ()

    def accepts(self, value: object) -> bool:
        """Whether a value is a finite number within the range."""
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            return False
        number = float(value)
        above = self.low is None or number > self.low or (self.low_inclusive and number == self.low)
        below = self.high is None or number < self.high or (self.high_inclusive and number == self.high)
        return above and below


@dataclass(frozen=True)
class TextCondition:
    """A text field equal to a value."""

    field: str
    value: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The condition as the language writes it."""
        return (f"{self.field} = {self.value}",)

    def accepts(self, value: object) -> bool:
        """Whether a value is this text."""
        return value == self.value


@dataclass(frozen=True)
class Exclusion:
    """A field, numeric or text, that has a value but not this one."""

    field: str
    value: float | str

    @property
    def texts(self) -> tuple[str, ...]:
        """The condition as the language writes it."""
        value = self.value if isinstance(self.value, str) else _number_text(self.value)
        return (f"{self.field} != {value}",)

    def accepts(self, value: object) -> bool:
        """Whether a value is there, of the field's kind, and another one."""
        if isinstance(self.value, str):
            return isinstance(value, str) and value != self.value
        return Condition(self.field).accepts(value) and value != self.value


@dataclass(frozen=True)
class ElementCondition:
    """The elements that a crystal must have, may have (`None`: any) and must not have; each in alphabetical order."""

    must: tuple[str, ...] = ()
    may: tuple[str, ...] | None = None
    must_not: tuple[str, ...] = ()
    field: str = "elements"

    @property
    def texts(self) -> tuple[str, ...]:
        """The condition as the language writes it."""
        parts = (("has", self.must), ("in", self.may), ("without", self.must_not))
        return tuple(f"elements {word} {', '.join(symbols)}" for word, symbols in parts if symbols)

    def accepts(self, value: object) -> bool:
        """Whether a value is a collection of element symbols that fulfils the condition."""
        if isinstance(value, str) or not isinstance(value, Collection) or not value:
            return False
        symbols = set(value)
        return (
            symbols.issuperset(self.must)
            and symbols.isdisjoint(self.must_not)
            and (self.may is None or symbols.issubset(self.may))
        )


PHYSICAL_RANGES: Mapping[str, Condition] = {  # a target outside is refused
    "band_gap": Condition("band_gap", 0.0),
    "energy_above_hull": Condition("energy_above_hull", 0.0),
    "space_group_number": Condition("space_group_number", 1.0, 230.0),
    "nelements": Condition("nelements", 1.0),
    "nsites": Condition("nsites", 1.0),
    "volume_per_atom": Condition("volume_per_atom", 0.0, low_inclusive=False),
}
AnyCondition = Condition | TextCondition | Exclusion | ElementCondition


@dataclass(frozen=True)
class Target:
    """A conjunction of conditions, at most one range a numeric field, ordered as `FIELDS`. Make one with `parse`."""

    conditions: tuple[AnyCondition, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Target":
        """Read conditions, joined by `and` within a text; several texts must all hold.

        Args:
            texts: Such as `0.5 < band_gap < 2.0`, `nelements = 3`, `elements has Ga, As`, `elements in Ga, As, N`,
                `elements without Pb`, `crystal_system = cubic`, `formula_pretty = GaAs`, `chemsys = As-Ga`.

        Raises:
            TargetError: A text can't be read, names an unknown field, or contradicts itself or another one.
        """
        if isinstance(texts, str):
            texts = [texts]
        return cls(_merge([condition for text in texts for condition in _Parser(text).conditions()]))

    def matches(self, values: Mapping[str, object]) -> bool:
        """Whether values (field name to value) fulfil every condition; a missing value or NaN fulfils none."""
        return all(condition.accepts(values.get(condition.field)) for condition in self.conditions)

    def range(self, field: str) -> tuple[float, float] | None:
        """Return the ends of a numeric field's range, infinite where open; `None` where the target leaves it free."""
        for condition in self.conditions:
            if isinstance(condition, Condition) and condition.field == field:
                low, high = condition.low, condition.high
                return (-math.inf if low is None else low, math.inf if high is None else high)
        return None

    def space_group_numbers(self) -> list[int]:
        """Return the ITA numbers that `space_group_number` and `crystal_system` allow, ascending; all 230 if free."""
        fields = ("space_group_number", "crystal_system")
        return list(_space_group_numbers(tuple(one for one in self.conditions if one.field in fields)))

    @cached_property
    def elements(self) -> ElementCondition:
        """What `elements`, `chemsys = ...` and `formula_pretty = ...` together say of the elements."""
        joined = ElementCondition()
        for condition in self.conditions:
            if isinstance(condition, ElementCondition):
                joined = _joined(joined, condition)
            elif isinstance(condition, TextCondition) and condition.field in ("chemsys", "formula_pretty"):
                symbols = tuple(sorted(set(re.findall("[A-Z][a-z]?", condition.value))))
                joined = _joined(joined, ElementCondition(symbols, symbols))
        return joined

    def texts(self) -> list[str]:
        """Return the canonical texts, one a simple condition; parsing them gives an equal target."""
        return [text for condition in self.conditions for text in condition.texts]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields with a condition, in the order of `FIELDS`."""
        return tuple(dict.fromkeys(condition.field for condition in self.conditions))

    def __str__(self) -> str:
        return " and ".join(self.texts())


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


@cache
def _symmetry(number: int) -> dict[str, object]:
    return {"space_group_number": number, "crystal_system": space_group(number).crystal_system}


@lru_cache(maxsize=1024)
def _space_group_numbers(conditions: tuple[AnyCondition, ...]) -> tuple[int, ...]:
    return tuple(n for n in range(1, 231) if all(one.accepts(_symmetry(n)[one.field]) for one in conditions))


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<operator><=|>=|!=|==|<|>|=|≤|≥|≠)
    |(?P<comma>,)
    |"(?P<quoted>[^"]*)"
    |(?P<word>[A-Za-z(][\w()-]*)
    )""",
    re.VERBOSE | re.ASCII,
)
_SPELLINGS = {"==": "=", "≤": "<=", "≥": ">=", "≠": "!="}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d{0,4}|[()]\d{0,4}){1,40}", re.ASCII)
_EXAMPLE = "'0.5 < band_gap < 2.0 and elements has Ga, As'"


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TargetError(f"can't read target {text!r}; expected a text such as {_EXAMPLE}")
        self.text = text
        if len(text) > MAX_TEXT_LENGTH:
            raise TargetError(f"target text of {len(text)} characters; expected at most {MAX_TEXT_LENGTH}; split it")
        self.tokens: list[tuple[str, str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                self.fail(f"{text[position:].split()[0]!r} is not understood", "a field, an operator or a plain number")
            kind = match.lastgroup or ""
            self.tokens.append((kind, _SPELLINGS.get(match[kind], match[kind])))
            position = match.end()
        self.index = 0

    def fail(self, problem: str, expected: str, example: str = _EXAMPLE) -> NoReturn:
        shown = self.text if len(self.text) <= 120 else self.text[:117] + "..."
        raise TargetError(f"can't read target {shown!r}: {problem}; expected {expected}, for example {example}")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.index] if self.index < len(self.tokens) else ("end", "")

    def take(self, kinds: tuple[str, ...], expected: str, example: str = _EXAMPLE) -> str:
        kind, token = self.peek()
        if kind not in kinds:
            self.fail(
                "it ends too early" if kind == "end" else f"{token!r} stands in the wrong place", expected, example
            )
        self.index += 1
        return token

    def conditions(self) -> list[AnyCondition]:
        found = self.condition()
        while self.peek()[0] != "end":
            kind, token = self.peek()
            if kind != "word" or token.lower() != "and":
                hint = "'and' before the next condition (numbers carry no unit; 'or' and 'not' are not in the language)"
                self.fail(f"{token!r} stands in the wrong place", hint)
            self.index += 1
            found += self.condition()
        return found

    def condition(self) -> list[AnyCondition]:
        if self.peek()[0] == "number":
            return self.number_first()
        field = self.field(FIELDS)
        if field == "elements":
            return [self.element_condition()]
        operators = ("<", "<=", ">", ">=", "=", "!=") if field in NUMERIC_FIELDS else ("=", "!=")
        operator = self.operator(field, operators)
        if field in NUMERIC_FIELDS:
            return [_numeric(field, operator, self.number(field))]
        value = self.text_value(field)
        return [TextCondition(field, value) if operator == "=" else Exclusion(field, value)]

    def number_first(self) -> list[AnyCondition]:
        first = self.number("the field")
        left = self.operator("the number", tuple(_MIRRORED))
        field = self.field(tuple(NUMERIC_FIELDS))
        found = [_numeric(field, _MIRRORED[left], first)]
        if self.peek()[0] == "operator":
            right = self.operator(field, tuple(_MIRRORED))
            if left[0] != right[0] or left[0] not in "<>":
                self.fail(f"'{left}' and '{right}' don't make a range", "both signs to point the same way")
            found.append(_numeric(field, right, self.number(field)))
        return found

    def field(self, known: tuple[str, ...]) -> str:
        name = self.take(("word",), "the name of a field")
        if name not in known:
            near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            suggestion = f" (did you mean {near[0]}?)" if near else ""
            kind = "numeric field" if name in FIELDS else "field"
            self.fail(f"unknown {kind} {name!r}{suggestion}", f"one of {', '.join(known)}")
        return name

    def operator(self, after: str, allowed: tuple[str, ...]) -> str:
        expected = f"one of {' '.join(allowed)} after {after}"
        operator = self.take(("operator",), expected)
        if operator not in allowed:
            self.fail(f"{operator!r} does not apply to {after}", expected)
        return operator

    def number(self, field: str) -> float:
        token = self.take(("number",), f"a finite number beside {field}")
        number = float(token) + 0.0  # turns -0.0 into 0.0
        if not math.isfinite(number):
            self.fail(f"{token!r} is not finite", f"a finite number beside {field}")
        return number

    def element_condition(self) -> ElementCondition:
        example = "'elements has Ga, As'"
        word = self.take(("word",), "'has', 'in' or 'without' after elements", example).lower()
        if word not in ("has", "in", "without"):
            self.fail(f"{word!r} does not apply to elements", "'has', 'in' or 'without'", example)
        symbols = {self.element(example)}
        while self.peek()[0] == "comma":
            self.index += 1
            symbols.add(self.element(example))
        listed = tuple(sorted(symbols))
        if word == "has":
            return ElementCondition(must=listed)
        return ElementCondition(may=listed) if word == "in" else ElementCondition(must_not=listed)

    def element(self, example: str) -> str:
        symbol = self.take(("word", "quoted"), "a chemical symbol", example)
        if symbol not in ELEMENTS:
            self.fail(f"unknown element {symbol!r}", "a chemical symbol, first letter upper case", example)
        return symbol

    def text_value(self, field: str) -> str:
        normalise, expected, example = _TEXT_VALUES[field]
        value = self.take(("word", "quoted"), f"a value of {field}", example)
        normalised = normalise(value)
        if normalised is None:
            self.fail(f"{value!r} is no {field}", expected, example)
        return normalised


def _numeric(field: str, operator: str, value: float) -> AnyCondition:
    if operator == "!=":
        return Exclusion(field, value)
    low = value if operator in (">", ">=", "=") else None
    high = value if operator in ("<", "<=", "=") else None
    return Condition(field, low, high, low_inclusive=operator != ">", high_inclusive=operator != "<")


def _crystal_system(value: str) -> str | None:
    return value.lower() if value.lower() in CRYSTAL_SYSTEMS else None


def _chemsys(value: str) -> str | None:
    symbols = set(value.split("-"))
    return "-".join(sorted(symbols)) if symbols <= ELEMENTS else None


def _formula(value: str) -> str | None:
    if not _FORMULA.fullmatch(value) or not set(re.findall("[A-Z][a-z]?", value)) <= ELEMENTS:
        return None
    from pymatgen.core.composition import Composition  # heavy: only formulas need it

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # of noble gases, used for the order only
        with contextlib.suppress(ValueError, KeyError):
            return Composition(value).reduced_formula or None
    return None


_TEXT_VALUES: Mapping[str, tuple[Callable[[str], str | None], str, str]] = {
    "crystal_system": (_crystal_system, f"one of {', '.join(CRYSTAL_SYSTEMS)}", "'crystal_system = cubic'"),
    "chemsys": (_chemsys, "chemical symbols joined by hyphens", "'chemsys = As-Ga'"),
    "formula_pretty": (_formula, "a formula with whole numbers", "'formula_pretty = GaAs'"),
}
"""Text field to the function that normalises its value, what is expected of it, and an example."""


def _merge(found: Iterable[AnyCondition]) -> tuple[AnyCondition, ...]:
    ranges: dict[str, Condition] = {}
    others: dict[AnyCondition, None] = {}
    elements = ElementCondition()
    for condition in found:
        if isinstance(condition, Condition):
            ranges[condition.field] = _intersection(ranges.get(condition.field), condition)
        elif isinstance(condition, ElementCondition):
            elements = _joined(elements, condition)
        else:
            others[condition] = None
    kept: list[AnyCondition] = [*ranges.values(), *others]
    if elements != ElementCondition():
        kept.append(elements)
    order = {field: place for place, field in enumerate(FIELDS)}
    kept.sort(key=lambda condition: (order[condition.field], isinstance(condition, Exclusion), condition.texts))
    target = Target(tuple(kept))
    _check(target)
    return target.conditions


def _joined(one: ElementCondition, other: ElementCondition) -> ElementCondition:
    return ElementCondition(
        tuple(sorted({*one.must, *other.must})),
        one.may if other.may is None else _allowed_by_both(one.may, other.may),
        tuple(sorted({*one.must_not, *other.must_not})),
    )


def _allowed_by_both(one: tuple[str, ...] | None, other: tuple[str, ...]) -> tuple[str, ...]:
    if one is not None and set(one).isdisjoint(other):
        _contradict(f"elements in {', '.join(one)} and elements in {', '.join(other)}", "no element is left")
    return other if one is None else tuple(sorted({*one} & {*other}))


def _intersection(one: Condition | None, other: Condition) -> Condition:
    if one is None:
        return other
    lows = [(c.low, not c.low_inclusive) for c in (one, other) if c.low is not None]
    highs = [(c.high, c.high_inclusive) for c in (one, other) if c.high is not None]
    low, low_exclusive = max(lows, default=(None, False))
    high, high_inclusive = min(highs, default=(None, True))
    return Condition(one.field, low, high, not low_exclusive, high_inclusive)


def _check(target: Target) -> None:
    texts: dict[str, str] = {}
    for condition in target.conditions:
        field = condition.field
        if isinstance(condition, Condition):
            excluded = {c.value for c in target.conditions if isinstance(c, Exclusion) and c.field == field}
            if _is_empty(condition, excluded):
                physical = PHYSICAL_RANGES.get(field)
                hint = f" ({physical.texts[0]} always)" if physical else ""
                _contradict(condition.texts[0], f"no value of {field} fulfils it{hint}")
        elif isinstance(condition, TextCondition):
            if texts.setdefault(field, condition.value) != condition.value:
                _contradict(str(target), f"{field} can't be both {texts[field]} and {condition.value}")
        elif isinstance(condition, Exclusion) and texts.get(field) == condition.value:
            _contradict(str(target), f"{field} can't be {condition.value} and not be it")
    if not target.space_group_numbers():
        _contradict(str(target), "no space group fulfils it")
    _check_elements(target)


def _is_empty(condition: Condition, excluded: Collection[float | str]) -> bool:
    merged = _intersection(PHYSICAL_RANGES.get(condition.field), condition)
    low = -math.inf if merged.low is None else merged.low
    high = math.inf if merged.high is None else merged.high
    if low > high or (low == high and (not merged.accepts(low) or low in excluded)):
        return True
    if condition.field not in INTEGER_FIELDS or high - low > 300:
        return False
    integers = range(math.ceil(low), math.floor(high) + 1)
    return not any(merged.accepts(number) and number not in excluded for number in integers)


def _check_elements(target: Target) -> None:
    elements = target.elements
    forbidden = sorted(set(elements.must) & set(elements.must_not))
    if forbidden:
        _contradict(str(target), f"{', '.join(forbidden)} both wanted and unwanted")
    n_most = 118
    if elements.may is not None:
        left_out = sorted(set(elements.must) - set(elements.may))
        if left_out:
            _contradict(str(target), f"{', '.join(left_out)} wanted but not among the elements allowed")
        n_most = len(set(elements.may) - set(elements.must_not))
        if n_most == 0:
            _contradict(str(target), "no element is left")
    low, high = target.range("nelements") or (1.0, math.inf)
    if len(elements.must) > high or n_most < low:
        _contradict(str(target), f"nelements against {len(elements.must)} wanted and {n_most} allowed elements")


def _contradict(text: str, problem: str) -> NoReturn:
    raise TargetError(f"target {text!r} can't be met: {problem}; relax or drop one of the conditions")
