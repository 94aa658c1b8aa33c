"""Filters against an evaluation of our own, with unknown values as the standard has them."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimade.exceptions import BadRequest, NotImplementedResponse, OptimadeHTTPException
from optimade.filterparser import LarkParser

from tests.platform.api.conftest import Served
from wyloop.platform.api.conditions import NEVER
from wyloop.platform.api.entries import Entries, Limits, Listing
from wyloop.platform.api.filters import parse_filter

Document = dict[str, Any]
Test = Callable[[Document], bool | None]
"""What a filter says of a document; None: unknown."""


@pytest.fixture(scope="module")
def entries(served: Served) -> Entries:
    limits = Limits(max_page_limit=2000, query_time_ms=60_000, count_time_ms=60_000)
    return Entries("structures", served.store.database["optimade_structures"], limits)


@pytest.fixture(scope="module")
def documents(served: Served) -> list[Document]:
    return list(served.store.database["optimade_structures"].find())


def ids(entries: Entries, text: str) -> set[str]:
    page = entries.page(Listing(filter=text, page_limit=2000, response_fields=("nsites",)))
    assert page.n_matches == len(page.entries)
    return {entry["id"] for entry in page.entries}


def expected(documents: list[Document], test: Test) -> set[str]:
    return {document["entry_id"] for document in documents if test(document) is True}


def value(name: str, compare: Callable[[Any], bool]) -> Test:
    return lambda document: None if document.get(name) is None else compare(document[name])


CASES: dict[str, Test] = {
    'elements HAS ALL "Ga","As" AND nelements=3': lambda d: {"Ga", "As"} <= {*d["elements"]} and d["nelements"] == 3,
    'elements HAS "O"': lambda d: "O" in d["elements"],
    'elements HAS ALL "O","O"': lambda d: "O" in d["elements"],
    'elements HAS ANY "Fr","At"': lambda d: bool({"Fr", "At"} & {*d["elements"]}),
    'elements HAS ONLY "Ga","As","N"': lambda d: {*d["elements"]} <= {"Ga", "As", "N"},
    'NOT elements HAS ONLY "Ga","As","N"': lambda d: not {*d["elements"]} <= {"Ga", "As", "N"},
    'NOT elements HAS ALL "Ga","As"': lambda d: not {"Ga", "As"} <= {*d["elements"]},
    'NOT elements HAS ANY "O","S"': lambda d: not {"O", "S"} & {*d["elements"]},
    'NOT elements HAS "O"': lambda d: "O" not in d["elements"],
    "elements LENGTH 2": lambda d: d["nelements"] == 2,
    "elements LENGTH > 2": lambda d: d["nelements"] > 2,
    "NOT elements LENGTH > 2": lambda d: d["nelements"] <= 2,
    "species LENGTH >= 3": lambda d: d["nelements"] >= 3,
    "dimension_types LENGTH 3": lambda _: True,
    "dimension_types LENGTH > 3": lambda _: False,
    "dimension_types LENGTH > 2": lambda _: True,
    "dimension_types LENGTH <= 3": lambda _: True,
    "dimension_types LENGTH < 3": lambda _: False,
    "dimension_types LENGTH != 3": lambda _: False,
    "dimension_types LENGTH >= 0": lambda _: True,
    "dimension_types LENGTH < 0": lambda _: False,
    "structure_features LENGTH 0": lambda _: True,
    'NOT structure_features HAS "disorder"': lambda _: True,
    "dimension_types HAS 1": lambda _: True,
    "nelements = 2 OR nelements = 3 AND nsites > 6": lambda d: (
        d["nelements"] == 2 or (d["nelements"] == 3 and d["nsites"] > 6)
    ),
    "(nelements = 2 OR nelements = 3) AND nsites > 6": lambda d: d["nelements"] in (2, 3) and d["nsites"] > 6,
    "NOT nelements = 2 AND nsites > 6": lambda d: d["nelements"] != 2 and d["nsites"] > 6,
    "NOT (nelements = 2 AND nsites > 6)": lambda d: not (d["nelements"] == 2 and d["nsites"] > 6),
    "NOT (NOT (nelements = 2 OR nsites > 6))": lambda d: d["nelements"] == 2 or d["nsites"] > 6,
    "3 < nsites": lambda d: d["nsites"] > 3,
    "3 >= nsites": lambda d: d["nsites"] <= 3,
    "nsites = 4.0": lambda d: d["nsites"] == 4,
    "nsites < 2.5e0": lambda d: d["nsites"] < 2.5,
    "_wyloop_band_gap > 1.5": value("band_gap", lambda gap: gap > 1.5),
    "NOT _wyloop_band_gap > 1.5": value("band_gap", lambda gap: gap <= 1.5),
    "_wyloop_band_gap != 0": value("band_gap", lambda gap: gap != 0),
    "NOT _wyloop_band_gap != 0": value("band_gap", lambda gap: gap == 0),
    "_wyloop_band_gap >= -1e300": value("band_gap", lambda gap: True),
    "_wyloop_band_gap IS KNOWN": lambda d: d.get("band_gap") is not None,
    "_wyloop_band_gap IS UNKNOWN": lambda d: d.get("band_gap") is None,
    "NOT _wyloop_band_gap IS KNOWN": lambda d: d.get("band_gap") is None,
    "_wyloop_formation_energy_per_atom < -1.25 AND _wyloop_formation_energy_per_atom > -1.5": value(
        "formation_energy_per_atom", lambda energy: -1.5 < energy < -1.25
    ),
    "_wyloop_energy_above_hull <= 0.0": value("energy_above_hull", lambda energy: energy <= 0),
    "_wyloop_is_validated = TRUE": lambda d: d["is_validated"],
    "_wyloop_is_validated != TRUE": lambda d: not d["is_validated"],
    "NOT _wyloop_is_validated = FALSE": lambda d: d["is_validated"],
    "_wyloop_space_group_number = 225": lambda d: d["space_group_it_number"] == 225,
    'space_group_symbol_hermann_mauguin = "F m -3 m"': lambda d: d["space_group_it_number"] == 225,
    '_wyloop_source = "wyloop"': lambda d: d["origin"] == "materials",
    'chemical_formula_reduced = "AsGa"': lambda d: d["chemical_formula_reduced"] == "AsGa",
    'chemical_formula_anonymous CONTAINS "3B2"': lambda d: "3B2" in d["chemical_formula_anonymous"],
    'chemical_formula_descriptive STARTS WITH "Ga"': lambda d: d["chemical_formula_descriptive"].startswith("Ga"),
    'chemical_formula_descriptive STARTS "Ga"': lambda d: d["chemical_formula_descriptive"].startswith("Ga"),
    'chemical_formula_descriptive ENDS WITH "2"': lambda d: d["chemical_formula_descriptive"].endswith("2"),
    'chemical_formula_descriptive CONTAINS ")2"': lambda d: ")2" in d["chemical_formula_descriptive"],
    'chemical_formula_descriptive CONTAINS "."': lambda _: False,
    'NOT chemical_formula_descriptive CONTAINS "O"': lambda d: "O" not in d["chemical_formula_descriptive"],
    '_wyloop_citation CONTAINS "Madelung"': value("citation", lambda text: "Madelung" in text),
    'NOT _wyloop_citation CONTAINS "Madelung"': value("citation", lambda text: "Madelung" not in text),
    'id = "wyloop-starter:starter-Ag2O-224"': lambda d: d["entry_id"] == "wyloop-starter:starter-Ag2O-224",
    'id < "wyloop-starter:starter-B"': lambda d: d["entry_id"] < "wyloop-starter:starter-B",
    'last_modified > "1999-12-31T23:59:59Z"': lambda _: True,
    'last_modified > "2100-01-01T00:00:00.000+01:00"': lambda _: False,
    'references.id HAS "ref-cafcb672db7b"': lambda d: "ref-cafcb672db7b" in (d.get("reference_ids") or []),
    "assemblies IS UNKNOWN": lambda _: True,
    "assemblies LENGTH 1": lambda _: False,
    'type = "structures"': lambda _: True,
    'type != "structures"': lambda _: False,
    'NOT type CONTAINS "struct"': lambda _: False,
    "type IS KNOWN": lambda _: True,
    "_exmpl_x = 1": lambda _: False,
    "NOT _exmpl_x = 1": lambda _: False,
    "_exmpl_x IS UNKNOWN": lambda _: True,
    'NOT (_exmpl_x HAS "a" OR nelements = 2)': lambda _: False,
    "_exmpl_x = 1 OR nelements = 2": lambda d: d["nelements"] == 2,
    "  ": lambda _: True,
}


@pytest.mark.parametrize("text", CASES)
def test_a_filter_finds_what_it_says(text: str, entries: Entries, documents: list[Document]) -> None:
    assert ids(entries, text) == expected(documents, CASES[text])


def test_the_cases_tell_something_apart(documents: list[Document]) -> None:
    sizes = [len(expected(documents, test)) for test in CASES.values()]
    assert sum(0 < size < len(documents) for size in sizes) > 40


def comparison() -> st.SearchStrategy[tuple[str, Test]]:
    """A comparison of a number that is always, sometimes or never known, with its meaning."""
    tests: dict[str, Callable[[Any, float], bool]] = {
        "<": lambda x, y: x < y,
        "<=": lambda x, y: x <= y,
        ">": lambda x, y: x > y,
        ">=": lambda x, y: x >= y,
        "=": lambda x, y: x == y,
        "!=": lambda x, y: x != y,
    }
    names = {
        "nsites": "nsites",
        "_wyloop_band_gap": "band_gap",
        "_wyloop_formation_energy_per_atom": "formation_energy_per_atom",
        "_wyloop_lowest_optical_frequency": "lowest_optical_frequency",
    }

    def made(name: str, word: str, limit: float) -> tuple[str, Test]:
        return f"{name} {word} {limit!r}", value(names[name], lambda found: tests[word](found, limit))

    limits = st.sampled_from([-2.0, -1.0, 0.0, 1.3, 2.0, 4.0, 8.0])
    return st.builds(made, st.sampled_from(sorted(names)), st.sampled_from(sorted(tests)), limits)


def combined(parts: st.SearchStrategy[tuple[str, Test]]) -> st.SearchStrategy[tuple[str, Test]]:
    def negated(one: tuple[str, Test]) -> tuple[str, Test]:
        def test(document: Document) -> bool | None:
            found = one[1](document)
            return None if found is None else not found

        return f"NOT ({one[0]})", test

    def joined(one: tuple[str, Test], other: tuple[str, Test], word: str) -> tuple[str, Test]:
        def test(document: Document) -> bool | None:
            both = (one[1](document), other[1](document))
            decisive = word == "OR"
            if decisive in both:
                return decisive
            return None if None in both else not decisive

        return f"({one[0]}) {word} ({other[0]})", test

    return st.one_of(st.builds(negated, parts), st.builds(joined, parts, parts, st.sampled_from(["AND", "OR"])))


@given(st.recursive(comparison(), combined, max_leaves=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_combination_of_comparisons_means_the_same(
    entries: Entries, documents: list[Document], case: tuple[str, Test]
) -> None:
    assert ids(entries, case[0]) == expected(documents, case[1])


REFUSED = [
    ("nelements", BadRequest),
    ("nelements =", BadRequest),
    ("nelements=3 nsites=4", BadRequest),
    ("nelements ~ 3", BadRequest),
    ('nelements = "3"', BadRequest),
    ("id = 3", BadRequest),
    ("nelements CONTAINS 3", BadRequest),
    ("chemical_formula_reduced CONTAINS 3", BadRequest),
    ('nelements HAS "a"', BadRequest),
    ("nelements LENGTH 3", BadRequest),
    ("elements LENGTH 99999999999999", BadRequest),
    ("elements HAS 3", BadRequest),
    ('dimension_types HAS "a"', BadRequest),
    ("_wyloop_is_validated > TRUE", BadRequest),
    ("_wyloop_is_validated = 1", BadRequest),
    ("nelements = TRUE", BadRequest),
    ("nelements = 99999999999999999999", BadRequest),
    (f"nelements = {'9' * 5000}", BadRequest),
    ('last_modified > "yesterday"', BadRequest),
    ('last_modified > "2026-01-01T00:00:00"', BadRequest),
    ('last_modified > "2026-01-01T00:00:00.123456Z"', BadRequest),
    ('last_modified > "0001-01-01T00:00:00+14:00"', BadRequest),
    ("colour = 3", BadRequest),
    ("_wyloop_colour = 3", BadRequest),
    ("_ = 3", BadRequest),
    ("$where = 3", BadRequest),
    ("elements.$where = 3", BadRequest),
    (f"{'(' * 50}nelements=3{')' * 50}", BadRequest),
    ("nelements=3 OR " * 1000 + "nelements=3", BadRequest),
    ("nelements = nsites", NotImplementedResponse),
    ('"a" = "b"', NotImplementedResponse),
    ("1 = 1", NotImplementedResponse),
    ('elements HAS < "A"', NotImplementedResponse),
    ('elements HAS ALL < "A", "B"', NotImplementedResponse),
    ('elements:elements_ratios HAS "Al":0.5', NotImplementedResponse),
    ('elements = "Ga"', NotImplementedResponse),
    ('species.name HAS "Ga"', NotImplementedResponse),
    ('species HAS "Ga"', NotImplementedResponse),
    ("lattice_vectors HAS 1", NotImplementedResponse),
    ('structures.id HAS "a"', NotImplementedResponse),
    ('references.doi HAS "a"', NotImplementedResponse),
]


@pytest.mark.parametrize(("text", "error"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_what_is_no_filter_here_is_refused(text: str, error: type[OptimadeHTTPException]) -> None:
    with pytest.raises(error):
        parse_filter(text, "structures")


def walk(query: object) -> set[str]:
    """All keys of a query that MongoDB takes as operators."""
    if isinstance(query, dict):
        own = {key for key in query if key.startswith("$")}
        return own.union(*(walk(inner) for inner in query.values()))
    return set().union(*(walk(inner) for inner in query)) if isinstance(query, list) else set()


@given(st.text(max_size=60), st.sampled_from(["CONTAINS", "STARTS WITH", "ENDS WITH", "=", "!=", "<"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_stays_a_text(served: Served, text: str, word: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    try:
        found = parse_filter(f'_wyloop_citation {word} "{quoted}"', "structures")
    except BadRequest:  # line ends that the grammar knows no text to have
        assert any(character in text for character in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\n\r")
        return
    assert walk(found.query) <= {"$regex", "$eq", "$nin", "$lt", "$alwaysFalse"}
    if found.query is not NEVER:
        served.store.database["optimade_structures"].find_one(found.query)  # the database takes it


@given(st.text(alphabet='()"\\ $.,:=<>!abnelmts_HASALNYORDTCKIFUW0123456789-+e\0é', max_size=80))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_or_taken_but_never_breaks(text: str) -> None:
    with contextlib.suppress(BadRequest, NotImplementedResponse):
        parse_filter(text, "structures")


def test_our_parser_reads_as_that_of_optimade_python_tools() -> None:
    from wyloop.platform.api.filters import _parser

    reference = LarkParser()
    for text in CASES:
        if text.strip() and "TRUE" not in text and "FALSE" not in text:
            assert _parser().parse(text) == reference.parse(text)


def test_unknown_providers_are_named_once() -> None:
    found = parse_filter("_nobody_x = 1 OR _nobody_x = 2", "structures")
    assert len(found.warnings) == 1
    assert "_nobody_x" in found.warnings[0]
    assert parse_filter("_exmpl_x = 1", "structures").warnings == ()


def test_every_query_uses_an_index(served: Served, entries: Entries) -> None:
    copy = served.store.database
    copy.command("profile", 2)
    try:
        for text in CASES:
            entries.page(Listing(filter=text, page_limit=3, response_fields=("nsites",)))
        entries.page(Listing(page_limit=3, page_above="wyloop-starter:starter-C"))
        entries.page(Listing(page_limit=3, page_offset=10))
        entries.one("wyloop-starter:starter-Ag2O-224", ())
    finally:
        copy.command("profile", 0)
    name = f"{served.store.name}.optimade_structures"
    done = list(copy["system.profile"].find({"ns": name, "op": {"$in": ["query", "command"]}}))
    plans = {str(row.get("planSummary")) for row in done if row["command"].get("count") is None}
    assert len(done) > len(CASES)
    assert not [plan for plan in plans if "COLLSCAN" in plan], plans


def test_the_filter_of_two_elements_reads_only_what_it_shows(served: Served) -> None:
    query = parse_filter('elements HAS ALL "Cu","O" AND nelements=3', "structures").query
    cursor = served.store.database["optimade_structures"].find(query).sort("entry_id", 1).limit(21)
    explained = cursor.explain()
    stages = str(explained["queryPlanner"]["winningPlan"])
    assert "COLLSCAN" not in stages
    assert "'SORT'" not in stages
    assert explained["executionStats"]["totalKeysExamined"] == explained["executionStats"]["nReturned"] > 0


def test_numbers_are_compared_exactly(entries: Entries, documents: list[Document]) -> None:
    energy = next(d["formation_energy_per_atom"] for d in documents if d.get("formation_energy_per_atom"))
    name = "_wyloop_formation_energy_per_atom"
    same = ids(entries, f"{name} = {energy!r}")
    assert same == expected(documents, value("formation_energy_per_atom", lambda found: found == energy))
    assert not same & ids(entries, f"{name} > {energy!r}")
    assert not same & ids(entries, f"{name} = {math.nextafter(energy, 1)!r}")
