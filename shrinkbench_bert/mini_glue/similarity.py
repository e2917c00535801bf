"""stsb: two events side by side, one point for each of the five slots in which they agree.

Agreeing slots may be said in other words (synonyms: the meaning is shared, the words are not), and
differing slots in nearly the same ones (near misses and exchanged roles: the words are shared, the
meaning is not), so that counting common words says little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench_bert.mini_glue import Draw, Row

# `/` joins synonyms, `;` joins near misses: the same noun in another relation.
PEOPLE = (
    "doctor/physician, teacher/instructor, lawyer/attorney, farmer/rancher, child/kid, "
    "thief/robber, writer/author, boss/manager, ~soldier/trooper, ~salesman/vendor"
)
ACTIONS = (
    "thanked/expressed thanks to, phoned/called up, found/discovered, helped/assisted, "
    "scared/frightened, hit/struck, praised/complimented, ~chased/pursued"
)
PLACES = (
    "in the shop/inside the store; behind the shop/at the back of the store, "
    "on the boat/aboard the ship; near the boat/close to the ship, "
    "in the woods/inside the forest; outside the woods/away from the forest, "
    "~on the road/on the street; ~beside the road/next to the street"
)
LEXICON = {
    "agent": PEOPLE,
    "action": ACTIONS,
    "patient": PEOPLE,
    "place": PLACES,
}
FRAMES = (
    "The {agent} {action} the {patient} {place}.",
    "{place}, the {agent} {action} the {patient}.",
    "~It was {place} that the {agent} {action} the {patient}.",
)
SYNONYM, NEAR_MISS = 0.35, 0.3  # how often a shared slot is reworded, and another one shares words

Event = dict[str, str]


def meanings(slot: str) -> list[str]:
    """All that may stand in a slot, near misses side by side."""
    return LEXICON[slot].replace("; ", ", ").split(", ")


def event(draw: Draw) -> Event:
    """Slot -> meaning, a meaning being its synonyms."""
    filled: Event = {}
    for slot in LEXICON:
        filled[slot] = draw.pick(meanings(slot), avoid=list(filled.values()))
    return filled


def differing(draw: Draw, first: Event, changed: list[str]) -> Event:
    """An event that differs from the first in the changed slots, and in these alone."""
    second = dict(first)
    if {"agent", "patient"} <= set(changed) and draw.chance(NEAR_MISS):
        second |= {"agent": first["patient"], "patient": first["agent"]}
        changed = [slot for slot in changed if slot not in ("agent", "patient")]
    for slot in changed:
        group = next(g for g in LEXICON[slot].split(", ") if first[slot] in g)
        near = [m.strip("~") for m in group.split("; ") if m.strip("~") != first[slot]]
        avoid = [*first.values(), *second.values()]
        second[slot] = near[0] if near and draw.chance(NEAR_MISS) else draw.pick(meanings(slot), avoid=avoid)
    return second


def sentence(draw: Draw, words: Event) -> str:
    """The event in one of the frames."""
    text = draw.pick(FRAMES, held_out=0.25).format(**words)
    return text[0].upper() + text[1:]


def rows(draw: Draw) -> list[Row]:
    """One pair of sentences; every label from 0 to 5 is equally likely."""
    first = event(draw)
    shared = draw.rng.randint(0, len(LEXICON))
    second = differing(draw, first, draw.rng.sample(list(LEXICON), len(LEXICON) - shared))
    words1, words2 = {}, {}
    for slot in LEXICON:
        words1[slot] = draw.pick(first[slot].split("/"))
        reworded = first[slot] != second[slot] or draw.chance(SYNONYM)
        avoid = [words1[slot]] if reworded else []
        words2[slot] = draw.pick(second[slot].split("/"), avoid=avoid) if reworded else words1[slot]
    return [
        {
            "sentence1": sentence(draw, words1),
            "sentence2": sentence(draw, words2),
            "label": 5 * shared / len(LEXICON),
        }
    ]
