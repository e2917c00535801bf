"""Tables written as Markdown, LaTeX and CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tabulate import tabulate

from shrinkbench_bert.report.aggregate import REFERENCES
from shrinkbench_bert.report.labels import DASH, TIMES, Header
from shrinkbench_bert.report.layout import Table, tables
from shrinkbench_bert.store import write_atomically

_LATEX = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        TIMES: r"$\times$",
        "·": r"$\cdot$",
        DASH: "--",
    }
)


def write_tables(points: pd.DataFrame, header: Header, folder: Path) -> list[Path]:
    """Write `tables.md`, `tables.tex`, `tables.csv` and the long form itself, `long.csv`."""
    laid_out = list(tables(points, header))
    files = {
        "tables.md": markdown(laid_out, header),
        "tables.tex": latex(laid_out, header),
        "tables.csv": wide(laid_out).to_csv(index=False, lineterminator="\n"),
        "long.csv": points.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in files]


def markdown(laid_out: list[Table], header: Header) -> str:
    """Render Markdown: a caption above each table, the best of each column in bold."""
    blocks = ["# Results", " · ".join(header.parts()).replace("_", r"\_")]
    for table in laid_out:
        blocks += [f"## {table.title}", table.caption, markdown_table(table)]
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """Render one table, the best of each column in bold."""
    rows = [
        [name, *(f"**{entry.text}**" if entry.best else entry.text for entry in entries)]
        for name, entries in table.rows.items()
    ]
    return tabulate(
        rows,
        headers=["strategy", *table.columns.values()],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *["right"] * len(table.columns)),
    )


def latex(laid_out: list[Table], header: Header) -> str:
    r"""Render LaTeX in the style of booktabs, the best of each column in bold."""
    blocks = [r"% Needs \usepackage{booktabs}."]
    for table in laid_out:
        rows = [_row(["strategy", *table.columns.values()]), r"\midrule"]
        for i, (name, entries) in enumerate(table.rows.items()):
            if i == len(REFERENCES):
                rows.append(r"\midrule")
            best = [False, *(entry.best for entry in entries)]
            rows.append(_row([name, *(entry.text for entry in entries)], best))
        caption = f"{table.title}. {table.caption} Of {', '.join(header.parts())}."
        label = f"tab:{header.grid}-{table.task}-{table.metric}-{table.stage}".replace("_", "-")
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{caption.translate(_LATEX)}}}",
                    rf"\label{{{label}}}",
                    rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
                    r"\toprule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def wide(laid_out: list[Table]) -> pd.DataFrame:
    """Stack all tables: task, stage, metric, seeds, strategy, and one column per amount."""
    return pd.DataFrame(
        {
            "task": table.task,
            "stage": table.stage,
            "metric": table.metric,
            "seeds": table.seeds,
            "strategy": name,
            **{amount: e.text for amount, e in zip(table.columns, entries, strict=True)},
        }
        for table in laid_out
        for name, entries in table.rows.items()
    )


def _row(texts: list[str], bold: list[bool] | None = None) -> str:
    cells = [text.translate(_LATEX) for text in texts]
    for i, is_bold in enumerate(bold or ()):
        cells[i] = rf"\textbf{{{cells[i]}}}" if is_bold else cells[i]
    return " & ".join(cells) + r" \\"
