"""What a majority vote and a bag of words reach: `python -m shrinkbench_bert.mini_glue.measure`."""

import re
from collections.abc import Iterator

import numpy as np
from scipy.sparse import hstack
from scipy.stats import pearsonr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from shrinkbench_bert.mini_glue import Row, Split, generate


def column(rows: list[Row], name: str) -> list[str]:
    """One column of the rows."""
    return [row[name] for row in rows]


def labels(rows: list[Row]) -> np.ndarray:
    """The labels, shape (rows,)."""
    return np.array([row["label"] for row in rows])


def majority_accuracy(data: dict[Split, list[Row]]) -> float:
    """The commonest training label, said of every validation sentence."""
    commonest = np.bincount(labels(data["train"])).argmax()
    return float(np.mean(labels(data["validation"]) == commonest))


def bag_of_words_accuracy(data: dict[Split, list[Row]]) -> float:
    """Logistic regression on unigram counts."""
    counts = CountVectorizer(token_pattern=r"\w+")
    model = LogisticRegression(max_iter=1000)
    model.fit(counts.fit_transform(column(data["train"], "sentence")), labels(data["train"]))
    predicted = model.predict(counts.transform(column(data["validation"], "sentence")))
    return float(np.mean(predicted == labels(data["validation"])))


def bag_of_words_pearson(data: dict[Split, list[Row]]) -> float:
    """Ridge regression on the unigram counts of both sentences, side by side."""
    counts = CountVectorizer(token_pattern=r"\w+")
    counts.fit(column(data["train"], "sentence1") + column(data["train"], "sentence2"))
    train, validation = (
        hstack([counts.transform(column(data[split], f"sentence{i}")) for i in (1, 2)])
        for split in ("train", "validation")
    )
    predicted = Ridge().fit(train, labels(data["train"])).predict(validation)
    return float(pearsonr(predicted, labels(data["validation"]))[0])


def overlap(rows: list[Row]) -> np.ndarray:
    """Jaccard overlap of the two sets of words, shape (rows, 1)."""
    sets = [
        [set(re.findall(r"\w+", row[name].lower())) for name in ("sentence1", "sentence2")] for row in rows
    ]
    return np.array([[len(a & b) / len(a | b)] for a, b in sets])


def overlap_pearson(data: dict[Split, list[Row]]) -> float:
    """Linear regression on the word overlap alone."""
    model = LinearRegression().fit(overlap(data["train"]), labels(data["train"]))
    return float(pearsonr(model.predict(overlap(data["validation"])), labels(data["validation"]))[0])


def mean_words(rows: list[Row]) -> float:
    """Words per sentence (per pair for stsb)."""
    texts = (" ".join(str(v) for k, v in row.items() if k.startswith("sentence")) for row in rows)
    return float(np.mean([len(text.split()) for text in texts]))


def table(seed: int = 0) -> Iterator[str]:
    """The measurements as the lines of a Markdown table."""
    data = generate(seed)
    yield "| task | metric | majority or mean | bag of words | word overlap | words per row |"
    yield "|---|---|---|---|---|---|"
    for task in ("sst2", "cola"):
        majority, bag = majority_accuracy(data[task]), bag_of_words_accuracy(data[task])
        words = mean_words(data[task]["train"])
        yield f"| {task} | accuracy | {majority:.3f} | {bag:.3f} | - | {words:.1f} |"
    stsb = data["stsb"]
    bag, shared = bag_of_words_pearson(stsb), overlap_pearson(stsb)
    words = mean_words(stsb["train"])
    yield f"| stsb | Pearson | 0 | {bag:.3f} | {shared:.3f} | {words:.1f} |"


if __name__ == "__main__":
    print("\n".join(table()))
