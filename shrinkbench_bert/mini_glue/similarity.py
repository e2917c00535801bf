"""stsb: two events side by side, 1.25 points for each of the four slots in which they agree.

A slot that agrees is repeated, reworded ("doctor", "physician"), or said to be the same ("the same
doctor"). One that differs has other words, or the same word said to be another ("another doctor",
"never thanked"), or agent and patient change places: neither common words nor markers alone tell the
score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench_bert.mini_glue import Draw, Row

# `/` joins synonyms.
PEOPLE = (
    "doctor/physician, teacher/instructor, lawyer/attorney, farmer/rancher, child/kid, thief/robber, "
    "writer/author, ~soldier/trooper, ~salesman/vendor"
)
LEXICON = {
    "agent": PEOPLE,
    "action": "thanked, phoned/called, found, helped/assisted, scared/frightened, hit/struck, ~chased",
    "patient": PEOPLE,
    "place": "shop/store, boat/ship, forest/woods, garden, school, hotel, ~street/road, ~station",
}
# How a slot is said: plainly, as the same again, as another one of the same name.
PLAIN, SAME, OTHER = 0, 1, 2
FORMS = {
    "agent": ("the {}", "the same {}", "another {}"),
    "action": ("{}", "again {}", "never {}"),
    "patient": ("the {}", "the same {}", "another {}"),
    "place": ("in the {}", "in the same {}", "in another {}"),
}
FRAMES = (
    "{agent} {action} {patient} {place}.",
    "{place}, {agent} {action} {patient}.",
    "~It was {place} that {agent} {action} {patient}.",
)
REWORDED, MARKED_SAME = 0.35, 0.15  # of the slots that agree
MARKED_OTHER = 0.3  # of the slots that differ
EXCHANGED = 0.6  # of the events that differ in both agent and patient

Words = dict[str, str]


def slot_in_second(draw: Draw, slot: str, first: str, word: str, shared: bool, taken: list[str]) -> str:
    """Say a slot of the second event; `first` is its meaning in the first one, `word` what it said."""
    plain, same, other = FORMS[slot]
    if not shared:
        if draw.chance(MARKED_OTHER):
            return other.format(word)
        return plain.format(draw.pick(draw.pick(LEXICON[slot].split(", "), avoid=taken).split("/")))
    if draw.chance(MARKED_SAME):
        return same.format(word)
    return plain.format(draw.pick(first.split("/")) if draw.chance(REWORDED) else word)


def sentence(draw: Draw, phrases: Words) -> str:
    """The event in one of the frames."""
    text = draw.pick(FRAMES, held_out=0.25).format(**phrases)
    return text[0].upper() + text[1:]


def rows(draw: Draw) -> list[Row]:
    """One pair of sentences; every number of shared slots is equally likely."""
    meanings: Words = {}
    for slot, entries in LEXICON.items():
        meanings[slot] = draw.pick(entries.split(", "), avoid=list(meanings.values()))
    words = {slot: draw.pick(meaning.split("/")) for slot, meaning in meanings.items()}
    shared = draw.rng.sample(list(LEXICON), draw.rng.randint(0, len(LEXICON)))
    first = {slot: FORMS[slot][PLAIN].format(word) for slot, word in words.items()}
    taken = list(meanings.values())
    second = {
        slot: slot_in_second(draw, slot, meanings[slot], words[slot], slot in shared, taken)
        for slot in LEXICON
    }
    if not {"agent", "patient"} & set(shared) and draw.chance(EXCHANGED):
        second |= {"agent": first["patient"], "patient": first["agent"]}
    return [
        {
            "sentence1": sentence(draw, first),
            "sentence2": sentence(draw, second),
            "label": 5 * len(shared) / len(LEXICON),
        }
    ]
