"""The results of the scale benchmark as a page of Markdown."""

from collections.abc import Callable
from typing import Any

Results = dict[str, Any]


def _cores(results: Results, stage: str) -> int:
    cores: int = results.get(stage, {}).get("cores", results["machine"]["cores"])
    return cores


ROWS: tuple[tuple[str, str, Callable[[Results], Any]], ...] = (
    ("structures and encodings loaded, documents/s", "3 000 / 10 000", lambda r: r["load"]["documents_per_s"]),
    ("the same, last tenth of the run", "", lambda r: r["load"]["last_tenth_documents_per_s"]),
    ("time against `insert_many` of the finished documents", "2", lambda r: r["load"]["ratio_to_insert_many"]),
    ("the same in processor time", "2", lambda r: r["load"]["processor_ratio_to_insert_many"]),
    ("the same, median of the groups compared", "2", lambda r: r["load"]["ratio_to_insert_many_p50"]),
    ("processor time, µs a document", "", lambda r: r["load"]["processor_us_a_document"]),
    ("genes noted in a second pass by the builder, documents/s", "", lambda r: r["load"]["two_passes_documents_per_s"]),
    ("the same, time against `insert_many`", "", lambda r: r["load"]["two_passes_ratio_to_insert_many"]),
    ("`insert_many` of the finished documents, documents/s", "", lambda r: r["load"]["insert_many_documents_per_s"]),
    ("maggma's `Store.update`, documents/s", "", lambda r: r["load"]["maggma_update_documents_per_s"]),
    ("candidates proposed, documents/s", "", lambda r: r["candidates"]["documents_per_s"]),
    ("the same, time against `insert_many`", "2", lambda r: r["candidates"]["ratio_to_insert_many"]),
    ("target query, p50, ms", "", lambda r: r["target"]["p50_ms"]),
    ("target query, p95, ms", "50 / 10", lambda r: r["target"]["p95_ms"]),
    ("target query, processor time, ms", "", lambda r: r["target"]["processor_ms"]),
    ("target query against a bare indexed find of 50, p50", "3", lambda r: r["target"]["ratio_p50"]),
    ("the same, p95", "3", lambda r: r["target"]["ratio_p95"]),
    ("novelty of 10 000 genes, p50, ms", "", lambda r: r["novelty"]["p50_ms"]),
    ("novelty of 10 000 genes, p95, ms", "2 000 / 500", lambda r: r["novelty"]["p95_ms"]),
    ("the same, processor time, ms", "", lambda r: r["novelty"]["processor_ms"]),
    ("the same, p50 against the bare query", "", lambda r: r["novelty"]["ratio_p50"]),
    ("OPTIMADE view built, documents/s", "", lambda r: r["view"]["documents_per_s"]),
    ("OPTIMADE first page, p50, ms", "", lambda r: r["optimade"]["p50_ms"]),
    ("OPTIMADE first page, p95, ms", "150 / 40", lambda r: r["optimade"]["p95_ms"]),
    ("the same, processor time, ms", "", lambda r: r["optimade"]["processor_ms"]),
    ("the same against bare query and JSON, p50", "4", lambda r: r["optimade"]["ratio_p50"]),
    ("the same, p95", "4", lambda r: r["optimade"]["ratio_p95"]),
    ("optimade-python-tools' own server, p50, ms", "", lambda r: r["tools"]["p50_ms"]),
    ("optimade-python-tools' own server, p95, ms", "", lambda r: r["tools"]["p95_ms"]),
    ("hull update after 100 new materials, s", "5 / 1", lambda r: r["hulls"]["p50_s"]),
    ("mongod's memory at the end, MB", "", lambda r: r["after"]["mongod_rss_mb"]),
    ("Python's peak memory, MB", "", lambda r: r["after"]["python_peak_mb"]),
    ("disk, journal and oplog included, MB", "", lambda r: r["after"]["disk_mb"]),
    ("cores that it may use, loading and later", "", lambda r: (_cores(r, "load"), _cores(r, "target"))),
    ("load of the machine: before, loading, target, OPTIMADE", "", lambda r: _loads(r)),
)
GROWN = (
    ("loading, seconds a document", lambda r: 1 / r["load"]["last_tenth_documents_per_s"]),
    ("loading, processor time a document", lambda r: r["load"]["processor_us_a_document"]),
    ("target query, p50", lambda r: r["target"]["p50_ms"]),
    ("target query, processor time", lambda r: r["target"]["processor_ms"]),
    ("novelty check, p50", lambda r: r["novelty"]["p50_ms"]),
    ("novelty check, processor time", lambda r: r["novelty"]["processor_ms"]),
    ("OPTIMADE first page, p50", lambda r: r["optimade"]["p50_ms"]),
    ("OPTIMADE first page, processor time", lambda r: r["optimade"]["processor_ms"]),
    ("hull update", lambda r: r["hulls"]["p50_s"]),
)


def markdown(results: dict[str, Results]) -> str:
    """Return the page: a table of all sizes, the growth between the least and the most, and how it was measured."""
    sizes = sorted(results, key=int)
    one = results[sizes[-1]]["machine"]
    lines = [
        "# Scale",
        "",
        "Made by `python tests/benchmarks/bench_scale.py --size N --write`. Data are made up by seed, in the shape of "
        "MP-20 and MPTS-52;",
        f"one mongod {one['mongod']} with a cache of {one['cache_gb']:g} GB, {one['memory_gb']:g} GB of memory. Ratios "
        "are to the bare pymongo call",
        "that does the same work, in turn with it in the same run. What else the machine did is in the row 'load': "
        "above the number of cores,",
        "absolute figures are those of a busy machine.",
        "",
        "| | must / aim | " + " | ".join(f"{int(size):,}".replace(",", " ") for size in sizes) + " |",
        "| --- | --- |" + " --- |" * len(sizes),
    ]
    for name, bound, read in ROWS:
        lines.append(f"| {name} | {bound} | " + " | ".join(_cell(read, results[size]) for size in sizes) + " |")
    if len(sizes) > 1:
        lines += ["", f"Growth from {sizes[0]} to {sizes[-1]} (must: under 3, aim: 1):", ""]
        for name, read in GROWN:
            lines.append(f"- {name}: {_growth(read, results[sizes[0]], results[sizes[-1]])}")
    lines += [
        "",
        "Loading is what ingest does once crystals are read and genes found: checks, content hashes, look-up of what "
        "is there, insert of the structure with",
        "its gene, insert of the encoding; the next batch is made ready while the server writes. `insert_many` is "
        "given finished documents of the same",
        "crystals under other names, for the same collections with the same indexes and write concern, in batches of "
        "the same size, in one thread; it checks",
        "nothing. Both write the same groups of crystals, spread over the run, in turn; who comes first changes. A "
        "second pass is needed where a structure",
        "was there before its gene: it is written twice. Finding genes takes its own time "
        "(`bench_ingest.py`). The target query asks for two ranges,",
        "a space group or crystal system and one or two elements, in the order of energy or gap, 50 rows. The novelty "
        "check brings 10 000 genes to their",
        "canonical form, looks them up among encodings and materials, and judges them; half are known. "
        "optimade-python-tools is its own server with its",
        "MongoDB back end on the same collection and indexes; maggma is a `MongoURIStore` with `update`, as its "
        "documentation shows.",
        "",
    ]
    return "\n".join(lines)


def _loads(result: Results) -> tuple[Any, ...]:
    stages = [result.get(name, {}).get("load", "?") for name in ("load", "target", "optimade")]
    return (result["machine"]["load_before"], *stages)


def _cell(read: Callable[[Results], Any], result: Results) -> str:
    try:
        value = read(result)
    except KeyError:
        return "not measured"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}".replace(",", " ")


def _growth(read: Callable[[Results], Any], first: Results, last: Results) -> str:
    try:
        return f"{read(last) / read(first):.2f}"
    except KeyError:
        return "not measured"
