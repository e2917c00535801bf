"""Measure what the harness costs against the usual ways, and print the table.

    python tests/benchmarks/run.py [--rounds 5] [--source FOLDER] [--write tests/benchmarks/results]

Ratios in one run on one machine; nothing else should run there meanwhile.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import of_grids
import of_memory
import of_scoring
import of_training
import torch
from measuring import Row
from setting import Setting
from tabulate import tabulate
from tqdm import tqdm

from shrinkbench_bert.provenance import provenance

PARTS = ("scoring", "memory", "training", "masks", "report", "grid")


def measure(part: str, setting: Setting, rounds: int) -> Iterator[Row]:
    """Yield the rows of one part."""
    match part:
        case "scoring":
            yield from of_scoring.rows(setting, rounds)
        case "memory":
            yield from of_memory.rows(setting)
        case "training":
            yield from of_training.rows(setting, rounds)
        case "masks":
            yield from of_grids.thresholds(rounds)
        case "report":
            yield of_grids.report()
        case "grid":
            yield of_grids.whole(setting, max(1, rounds // 3))


def table(rows: list[Row]) -> str:
    """Markdown: median, lowest and highest round, target."""
    lines = []
    for row in rows:
        digits = 3 if row.bound is None or row.bound < 2 else 1
        spread = (
            f" ({min(row.ratio):.{digits}f} to {max(row.ratio):.{digits}f})" if len(row.ratio) > 1 else ""
        )
        target = "reported" if row.bound is None else f"{row.sense} {row.bound:g} {row.unit}"
        verdict = {None: "", True: "met", False: "**missed**"}[row.met]
        measured = f"{row.median:.{digits}f} {row.unit}{spread}"
        lines.append([row.what, row.against, measured, len(row.ratio), target, verdict, row.note])
    headers = ["what", "against", "median (lowest to highest)", "rounds", "target", "", "note"]
    return tabulate(lines, headers=headers, tablefmt="pipe", disable_numparse=True)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar=f"{{{','.join(PARTS)}}}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", default="mini-glue", help="a folder or hub id with sst2")
    parser.add_argument("--write", type=Path, help="also write PATH.json and PATH.md")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))} (accepted: {', '.join(PARTS)})")
    logging.disable(logging.WARNING)
    setting, rows = Setting(chosen.source), []
    started = datetime.now(UTC)
    for part in tqdm(chosen.parts):
        rows += measure(part, setting, chosen.rounds)
    tokens = statistics.mean(len(row["input_ids"]) for row in setting.data.train.encoded)
    made = provenance(started, {}, torch.device("cpu"), torch.float32)
    machine = (
        f"{made.processor}, {torch.get_num_threads()} threads, fp32; torch {torch.__version__}, "
        f"Python {platform.python_version()}; {setting.model_name} on {setting.task}, batch size "
        f"{setting.batch_size}, {tokens:.1f} tokens a sequence"
    )
    text = f"{machine}\n\n{table(rows)}\n"
    print(text)
    if chosen.write:
        chosen.write.with_suffix(".md").write_text(text)
        content = {"provenance": made.model_dump(), "rows": [asdict(row) for row in rows]}
        chosen.write.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
