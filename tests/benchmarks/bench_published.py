"""Train the published configuration on the train file, report on the test file, and sample with its own sampler.

`python tests/benchmarks/bench_published.py [--steps N] [--out FOLDER] [--write]`: augmentation and transfer on; half of
the steps pre-train on formation energy, half train both properties, once on the rows with a gap (as the paper) and once
on all. Genes for the three conditions and unconditional ones go to FOLDER/*.jsonl, figures to FOLDER/published.json. A
model already in FOLDER with the same settings is not trained again. The test file is only reported on. With --write the
figures go into docs/benchmarks/published.md, beside those of the shipped model, which are measured in the same run.
"""

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gene_rows import read_rows
from judge import Judge, hits

from wyloop.models.mpvae.checkpoint import load_shipped
from wyloop.models.mpvae.data import GAP_FLOOR, TrainingRow
from wyloop.models.mpvae.evaluate import evaluate
from wyloop.models.mpvae.perturb import on_target
from wyloop.models.mpvae.published.config import PublishedConfig
from wyloop.models.mpvae.published.encoding import augmented, fault_shares, is_encodable
from wyloop.models.mpvae.published.model import (
    COPIES,
    PublishedModel,
    evaluate_published,
    perturb_published,
    predict,
    reconstruct,
)
from wyloop.models.mpvae.published.train import pretrain_published, train_published
from wyloop.models.screening.charge import charge_neutrality
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("WYLOOP_DATA", ROOT.parent / "shared" / "data"))
PAGE = ROOT / "docs" / "benchmarks" / "published.md"
TARGETS = {
    "condition_1": "1.0 <= band_gap <= 2.0 and formation_energy_per_atom < -1.5 and space_group_number >= 195",
    "condition_2": "3.5 <= band_gap <= 4.5 and formation_energy_per_atom < -2.5 and space_group_number >= 143",
    "de_novo": "0.5 <= band_gap <= 2.0 and formation_energy_per_atom < -1.0 and space_group_number >= 143",
}
N_UNCONDITIONAL = 10_000
TASKS = ("with_gap", "all")  # the first is the paper's, and the one that samples


def main() -> None:
    """Train or load, evaluate, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "mp20_biternary_train.csv.gz")
    parser.add_argument("--test", type=Path, default=DATA / "mp20_biternary_test.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("build/published"))
    parser.add_argument("--steps", type=int, default=3000, help="of each run, half of them pre-training")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="rows of the second half")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows, test = read_rows(arguments.data, arguments.out), read_rows(arguments.test, arguments.out)
    config = PublishedConfig(n_steps=arguments.steps, batch_size=arguments.batch_size, seed=arguments.seed)
    report: dict[str, Any] = {"machine": f"{platform.machine()}, one thread of {os.cpu_count()}", "test": {}}
    report |= {"steps": config.n_steps, "batch_size": config.batch_size, "epochs": epochs(rows, config)}
    models = trained(rows, config, arguments.tasks, arguments.out)
    for name, model in models.items():
        labelled = without_gaps(test) if name == "pretrained" else test  # it has seen no gap, so it predicts none
        report["test"][name] = measured(model, labelled, config.seed)
        print(name, json.dumps(report["test"][name]), flush=True)
    sampler = models[arguments.tasks[0]]
    report |= conditional(sampler, rows, test, arguments.out) | unconditional(sampler, rows, arguments.out)
    shipped = load_shipped()
    report["shipped"] = {"all_rows": evaluate(shipped, test), "rows_with_gap": evaluate(shipped, having_gaps(test))}
    (arguments.out / "published.json").write_text(json.dumps(report, indent=2) + "\n")
    if arguments.write:
        PAGE.write_text(page(report))


def conditional(
    model: PublishedModel, rows: Sequence[TrainingRow], test: Sequence[TrainingRow], folder: Path
) -> dict[str, Any]:
    """Sample for the three conditions, and let the independent judge say what hits."""
    judge = Judge(test)  # trained on the test file alone; nothing here is chosen by it
    known = {str(canonical(row.gene)) for row in rows}
    report: dict[str, Any] = {}
    for name, text in TARGETS.items():
        target = Target.parse([text])
        references = [gene for gene in on_target(rows, target) if is_encodable(gene)]
        genes, figures = sample(model, references, known, folder / f"{name}.jsonl")
        values = [
            prediction.values() | {"space_group_number": gene.space_group_number}
            for gene, prediction in zip(genes, predict(model, genes), strict=True)
        ]
        own_hits = np.array([target.matches(value) for value in values], bool)
        judged = hits(target, genes, judge(genes))
        found = [genes[index] for index in np.flatnonzero(judged)]
        report[name] = figures | {
            "own_hit_share": share(own_hits),
            "judged_hit_share": share(judged),
            "judged_hit_share_of_own_hits": share(judged[own_hits]),
            "n_hits": len(found),
            "hits_prototypes": len({gene.protostructure.split(":")[0] for gene in found}),
            "hits_chemical_systems": len({gene.chemsys for gene in found}),
        }
        print(name, json.dumps(report[name]), flush=True)
    return report


def unconditional(model: PublishedModel, rows: Sequence[TrainingRow], folder: Path) -> dict[str, Any]:
    """Sample around crystals of the train file drawn at random."""
    known = {str(canonical(row.gene)) for row in rows}
    drawn = np.random.default_rng(model.config.seed).permutation(len(rows))[: N_UNCONDITIONAL // COPIES]
    references = [rows[index].gene for index in drawn if is_encodable(rows[index].gene)]
    figures = sample(model, references, known, folder / "unconditional.jsonl")[1]
    print("unconditional", json.dumps(figures), flush=True)
    return {"unconditional": figures}


def epochs(rows: Sequence[TrainingRow], config: PublishedConfig) -> dict[str, float]:
    """Return how often the steps of each stage show every augmented row, validation rows counted in."""
    with_gap = [row.gene for row in rows if row.labels["band_gap"] >= GAP_FLOOR]
    shown = config.n_steps / 2 * config.batch_size
    sizes = {"all": len(augmented([row.gene for row in rows])[0]), "with_gap": len(augmented(with_gap)[0])}
    return {name: round(shown / size, 1) for name, size in sizes.items()}


def trained(
    rows: Sequence[TrainingRow], config: PublishedConfig, tasks: Sequence[str], folder: Path
) -> dict[str, PublishedModel]:
    """Train, or load what the same settings left: pre-trained, then the tasks from there."""
    before = kept("pretrained", config, folder) or pretrain_published(rows, config)
    before.save(folder / "pretrained.safetensors")
    models = {"pretrained": before}
    for task in tasks:
        settings = PublishedConfig.model_validate(config.model_dump() | {"multi_property_rows": task})
        model = kept(task, settings, folder) or train_published(rows, settings, initial=before)
        model.save(folder / f"{task}.safetensors")
        models[task] = model
        print(f"{task}: pre-training {before.card['wall_time_s']} s, then {model.card['wall_time_s']} s", flush=True)
    return models


def kept(name: str, config: PublishedConfig, folder: Path) -> PublishedModel | None:
    """Return a stored model if it has these settings."""
    path = folder / f"{name}.safetensors"
    model = PublishedModel.load(path) if path.exists() else None
    return model if model is not None and model.config == config else None


def measured(model: PublishedModel, test: Sequence[TrainingRow], seed: int) -> dict[str, Any]:
    """Evaluate on all test rows and on those with a gap, and name what is wrong with the genes that don't come back."""
    with_gap = having_gaps(test)
    back = reconstruct(model, [row.gene for row in test])
    figures = {"all_rows": rounded(evaluate_published(model, test, seed=seed))}
    if with_gap:
        figures["rows_with_gap"] = rounded(evaluate_published(model, with_gap, seed=seed))
    return figures | {
        "faults_of_reconstructions": rounded(fault_shares(back)),
        "wall_time_s": model.card["wall_time_s"],
    }


def having_gaps(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return the rows with a band gap."""
    return [row for row in rows if row.labels.get("band_gap", 0.0) >= GAP_FLOOR]


def without_gaps(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Return rows without their band gaps."""
    return [
        TrainingRow(row.gene, {name: value for name, value in row.labels.items() if name != "band_gap"}) for row in rows
    ]


def sample(
    model: PublishedModel, references: Sequence[Gene], known: set[str], path: Path
) -> tuple[list[Gene], dict[str, Any]]:
    """Sample, check, predict, screen for neutrality and novelty; write distinct valid genes; time the whole."""
    began = time.perf_counter()
    decoded = perturb_published(model, references, seed=model.config.seed, copies=COPIES)
    decode_s = time.perf_counter() - began
    valid = [canonical(row.gene) for row in decoded if row.gene is not None]
    genes = list({str(gene): gene for gene in valid}.values())
    predictions = predict(model, genes)
    novel = np.array([str(gene) not in known for gene in genes], bool)
    neutral = np.array([charge_neutrality(gene.amounts).passed for gene in genes], bool)
    seconds = time.perf_counter() - began
    lenient = perturb_published(model, references, seed=model.config.seed, drop_foreign_letters=True)
    with path.open("w") as file:
        for gene, prediction in zip(genes, predictions, strict=True):
            file.write(json.dumps(line(gene, prediction.values())) + "\n")
    return genes, {
        "n_references": len(references),
        "n_decoded": len(decoded),
        "valid_share": round(len(valid) / max(1, len(decoded)), 4),
        "valid_share_if_foreign_letters_are_dropped": share(np.array([row.gene is not None for row in lenient], bool)),
        "unique_share_of_valid": round(len(genes) / max(1, len(valid)), 4),
        "novel_share_of_unique": share(novel),
        "neutral_share_of_unique": share(neutral),
        "faults": rounded(fault_shares(decoded)),
        "decoded_per_s": round(len(decoded) / seconds),
        "distinct_genes_per_s": round(len(genes) / seconds),
        "decode_and_check_s": round(decode_s, 2),
        "seconds": round(seconds, 2),
    }


COLUMNS = {
    "formation_energy_mae": ("formation energy MAE, eV/atom", 1, 3),
    "band_gap_mae": ("band gap MAE, eV", 1, 3),
    "exact_reconstruction": ("exact reconstruction, %", 100, 1),
    "space_group_reconstruction": ("space group, %", 100, 1),
}
SAMPLES = {
    "valid_share": ("valid, %", 100, 1),
    "valid_share_if_foreign_letters_are_dropped": ("valid if foreign letters are dropped, %", 100, 1),
    "unique_share_of_valid": ("unique of valid, %", 100, 1),
    "novel_share_of_unique": ("novel of unique, %", 100, 1),
    "neutral_share_of_unique": ("neutral of unique, %", 100, 1),
    "own_hit_share": ("on target by its own head, %", 100, 1),
    "judged_hit_share": ("judged hits of distinct valid genes, %", 100, 1),
    "n_hits": ("hits", 1, 0),
    "distinct_genes_per_s": ("distinct genes/s", 1, 0),
}


def page(report: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    test = report["test"]
    models = {
        "pretrained": "published, formation energy alone",
        "with_gap": "published, both properties of rows with a gap (the paper's)",
        "all": "published, both properties of all rows",
    }
    measurements = {title: test[name] for name, title in models.items() if name in test}
    measurements["the shipped model"] = report["shipped"]
    lines = [
        "# The published configuration, on the same split",
        "",
        f"Written by `python tests/benchmarks/bench_published.py --steps {report['steps']} --write` "
        f"({report['machine']}). The architecture, losses and settings of the paper (`wyloop.models.mpvae.published`), "
        f"{report['steps']} optimiser steps of {report['batch_size']} rows, half of them pre-training. The original "
        "code, run on ternaries alone, reconstructs 58.8 % of those with a gap exactly and misses formation energies "
        "by 0.109 eV/atom and gaps by 0.567 eV; the test file here holds binaries and ternaries, metals too.",
        "",
    ]
    for rows, title in (("all_rows", "All test rows"), ("rows_with_gap", "Test rows with a gap")):
        found = {name: figures[rows] for name, figures in measurements.items() if rows in figures}
        lines += [f"## {title}", "", *table(found, COLUMNS), ""]
    targets = {name.replace("_", " "): report[name] for name in (*TARGETS, "unconditional")}
    lines += [
        "## Its sampler",
        "",
        "Known crystals on target, encoded, 20 copies each with noise, decoded; unconditional: 500 crystals drawn from "
        "the train file. The judge is that of [the generation benchmark](generation.md), where our sampler's figures "
        "stand.",
        "",
        *table(targets, SAMPLES),
        "",
    ]
    return "\n".join(lines)


def table(found: dict[str, dict[str, Any]], columns: dict[str, tuple[str, int, int]]) -> list[str]:
    """Return the rows of a Markdown table; a dash where a figure does not exist."""
    lines = [f"| | {' | '.join(title for title, _, _ in columns.values())} |", "| --- " * (1 + len(columns)) + "|"]
    for name, figures in found.items():
        entries = [
            "-" if figures.get(key) is None else f"{figures[key] * factor:.{digits}f}"
            for key, (_, factor, digits) in columns.items()
        ]
        lines.append(f"| {name} | {' | '.join(entries)} |")
    return lines


def line(gene: Gene, predictions: dict[str, float]) -> dict[str, Any]:
    """Return a gene as a line of genes.jsonl."""
    return {
        "formula_pretty": gene.formula_pretty,
        "space_group_number": gene.space_group_number,
        "protostructure": gene.protostructure,
        "wyckoff_sequence": gene.wyckoff_sequence,
        "nsites": gene.nsites,
        "fingerprint": str(gene),
        "predictions": predictions,
    }


def share(flags: np.ndarray[Any, Any]) -> float | None:
    """Return the share of true flags, None where there are none."""
    return round(float(flags.mean()), 4) if len(flags) else None


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Round to four digits."""
    return {name: round(value, 4) for name, value in values.items()}


if __name__ == "__main__":
    main()
