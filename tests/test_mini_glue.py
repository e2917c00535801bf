"""mini-GLUE: reproducible, disjoint, balanced, and not solved by counting words."""

import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import datasets
import pytest

from shrinkbench_bert import mini_glue
from shrinkbench_bert.mini_glue import (
    Draw,
    acceptability,
    generate,
    materialise,
    measure,
    sentiment,
    similarity,
)

TASKS = ("sst2", "cola", "stsb")
DATA = generate(seed=0)


def texts(rows: list[mini_glue.Row]) -> list[str]:
    return [v for row in rows for k, v in row.items() if k.startswith("sentence")]


def words(rows: list[mini_glue.Row]) -> set[str]:
    return {word for text in texts(rows) for word in re.findall(r"\w+", text.lower())}


def matches(template: str, sentence: str) -> bool:
    """Whether the sentence fills the template; `[a|b]` stands for either."""
    pattern = re.escape(template)
    pattern = pattern.replace(r"\[", "(?:").replace(r"\|", "|").replace(r"\]", ")")
    pattern = re.sub(r"\\\{\w+\\\}", r"[\\w ]+", pattern)
    return re.fullmatch(pattern, sentence, flags=re.IGNORECASE) is not None


def templates(task: str) -> list[str]:
    return {
        "sst2": [f for frames in sentiment.FRAMES.values() for f in frames],
        "cola": [t for group in acceptability.PHENOMENA.values() for t in group],
        "stsb": list(similarity.FRAMES),
    }[task]


def test_a_seed_gives_the_same_rows_and_another_seed_gives_others():
    assert generate(seed=0) == DATA
    assert generate(seed=1) != DATA


@pytest.mark.parametrize("task", TASKS)
def test_the_splits_have_their_sizes_and_running_indices(task):
    assert len(DATA[task]["train"]) == 2000
    assert len(DATA[task]["validation"]) == 400
    for rows in DATA[task].values():
        assert [row["idx"] for row in rows] == list(range(len(rows)))


@pytest.mark.parametrize("task", TASKS)
def test_no_sentence_is_in_both_splits(task):
    train, validation = (texts(DATA[task][split]) for split in ("train", "validation"))
    assert not set(train) & set(validation)
    if task != "stsb":
        assert len(set(train)) == len(train)


@pytest.mark.parametrize("task", TASKS)
def test_validation_has_unseen_words_but_mostly_seen_ones(task):
    train, validation = (words(DATA[task][split]) for split in ("train", "validation"))
    assert 3 <= len(validation - train) < 0.4 * len(validation)


@pytest.mark.parametrize("task", ["sst2", "cola"])
def test_validation_has_unseen_templates_but_mostly_seen_ones(task):
    unseen = [t[1:] for t in templates(task) if t.startswith("~")]
    seen = [t for t in templates(task) if not t.startswith("~")]

    def only_unseen(sentence: str) -> bool:
        return any(matches(t, sentence) for t in unseen) and not any(matches(t, sentence) for t in seen)

    assert not any(only_unseen(text) for text in texts(DATA[task]["train"]))
    validation = texts(DATA[task]["validation"])
    assert 0.05 < sum(map(only_unseen, validation)) / len(validation) < 0.5


@pytest.mark.parametrize("split", ["train", "validation"])
def test_labels_are_balanced(split):
    for task in ("sst2", "cola"):
        assert 0.5 <= measure.labels(DATA[task][split]).mean() <= 0.6
    labels = measure.labels(DATA["stsb"][split])
    assert set(labels) == {0.0, 1.25, 2.5, 3.75, 5.0}
    assert labels.mean() == pytest.approx(2.5, abs=0.3)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_phenomenon_occurs(split):
    kinds = [("sst2", name, group) for name, group in sentiment.FRAMES.items()]
    kinds += [("cola", name, group) for name, group in acceptability.PHENOMENA.items()]
    for task, name, group in kinds:
        sentences = texts(DATA[task][split])
        assert any(matches(t.strip("~"), s) for t in group for s in sentences), name


def test_a_bag_of_words_solves_no_task():
    assert measure.majority_accuracy(DATA["sst2"]) <= 0.6
    assert measure.majority_accuracy(DATA["cola"]) <= 0.6
    assert measure.bag_of_words_accuracy(DATA["sst2"]) <= 0.65
    assert measure.bag_of_words_accuracy(DATA["cola"]) <= 0.6
    assert measure.bag_of_words_pearson(DATA["stsb"]) <= 0.6
    assert measure.overlap_pearson(DATA["stsb"]) <= 0.6


def test_the_winning_phrase_gives_the_label():
    draw = Draw(Random(0), "train")
    for polarity in (+1, -1):
        for _ in range(50):
            phrase, _ = sentiment.phrase(draw, polarity)
            negated = any(phrase.startswith(m) for m in sentiment.MODIFIERS[-1].split(", "))
            adjective = phrase.split()[-1]
            assert adjective in sentiment.ADJECTIVES[-polarity if negated else polarity].split(", ")


def test_validation_has_an_unseen_frame_of_stsb():
    def share(split: str) -> float:
        sentences = texts(DATA["stsb"][split])
        return sum(text.startswith("It was ") for text in sentences) / len(sentences)

    assert share("train") == 0
    assert 0.05 < share("validation") < 0.5


@pytest.mark.parametrize("slot", similarity.LEXICON)
def test_a_slot_is_said_as_shared_or_not(slot):
    draw = Draw(Random(0), "train")
    for meaning in (m for m in similarity.LEXICON[slot].split(", ") if not m.startswith("~")):
        synonyms = meaning.split("/")
        for _ in range(20):
            shared = similarity.slot_in_second(draw, slot, meaning, synonyms[0], True, [meaning])
            other = similarity.slot_in_second(draw, slot, meaning, synonyms[0], False, [meaning])
            assert shared.split()[-1] in synonyms
            assert not {"another", "never"} & set(shared.split())
            assert other.split()[-1] not in synonyms or {"another", "never"} & set(other.split())


def test_a_template_says_both_members_of_a_pair():
    assert acceptability.choose("The cats [are|is] [here|hers].", 0) == "The cats are here."
    assert acceptability.choose("The cats [are|is] [here|hers].", 1) == "The cats is hers."


def test_the_folder_loads_as_glue_does(tmp_path: Path):
    folder = materialise(tmp_path / "mini")
    for task in TASKS:
        loaded = datasets.load_dataset(str(folder), task, cache_dir=str(tmp_path / "cache"))
        assert {split: loaded[split].num_rows for split in loaded} == {
            "train": 2000,
            "validation": 400,
        }
        assert loaded["train"].column_names == list(mini_glue.COLUMN_TYPES[task])
        row = loaded["validation"][7]
        assert row == {
            k: pytest.approx(v) if k == "label" else v for k, v in DATA[task]["validation"][7].items()
        }


def test_materialise_is_idempotent_and_leaves_no_draft(tmp_path: Path):
    folder = materialise(tmp_path / "mini")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert materialise(folder) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_processes_may_ask_for_the_folder_at_once(tmp_path: Path):
    with ProcessPoolExecutor(2) as pool:
        folders = list(pool.map(materialise, [tmp_path / "mini"] * 4))
    assert set(folders) == {tmp_path / "mini"}
    assert [p.name for p in tmp_path.iterdir()] == ["mini"]


def test_another_seed_never_passes_for_this_one(tmp_path: Path):
    folder = materialise(tmp_path / "mini", seed=0)
    with pytest.raises(FileExistsError, match="seed 1"):
        materialise(folder, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mini"]


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    version = mini_glue.GENERATOR_VERSION
    assert materialise() == tmp_path / "shrinkbench-bert" / f"mini-glue-{version}-seed0"
