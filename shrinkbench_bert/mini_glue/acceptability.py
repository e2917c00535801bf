"""cola: is the sentence English? Minimal pairs over a dozen phenomena, in the manner of BLiMP.

A template says both members of a pair at once: `[acceptable|unacceptable]`. Slots that share a
name share a word. Each violation has a mirror image among its neighbours (is/are, are/is), or is a
mere change of order, so that no word speaks for either label; the past tense alone is lexical.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench_bert.mini_glue import Draw, Row

WORDS = {
    "person": "doctor, farmer, teacher, singer, lawyer, sailor, guest, ~pilot, ~painter",
    "man": "boy, man, king, uncle, father, ~prince, ~waiter",
    "woman": "girl, woman, queen, aunt, mother, ~princess, ~waitress",
    "thing": "book, chair, letter, picture, basket, ticket, ~carpet, ~mirror",
    "place": "garden, kitchen, station, library, village, ~harbour, ~museum",
    "state": "tired, happy, angry, hungry, ready, quiet, ~nervous, ~thirsty",
    "near": "near, beside, behind, ~opposite",
    "sleep": "slept, waited, smiled, arrived, vanished, ~sneezed, ~napped",
    # No verb of these two may do without its object, or a violation would be English.
    "break": "carried, destroyed, praised, bought, described, ~repaired, ~ignored",
    "do": "find, lift, fix, destroy, describe, ~repair, ~fetch",
    "can": "can, will, must, ~should",
    "eat": "take/taken, see/seen, break/broken, choose/chosen, hide/hidden, ~steal/stolen",
    "took": "took/taked, brought/bringed, found/finded, kept/keeped, caught/catched, ~hid/hided",
}
LEXICON = {name: words.split(", ") for name, words in WORDS.items()}
LEXICON["people"] = [f"{person}s" for person in LEXICON["person"]]
LEXICON["things"] = [f"{thing}s" for thing in LEXICON["thing"]]
# Two forms of one verb, drawn together.
FORMS = {form: pair for pair in (("eat", "eaten"), ("took", "taked")) for form in pair}

PHENOMENA = {
    "subject-verb agreement": (
        "The {person1} in the {place1} [is|are] {state1}.",
        "The {people1} in the {place1} [are|is] {state1}.",
        "The {person1} [was|were] seen in the {place1}.",
        "The {people1} [were|was] seen in the {place1}.",
        "~I think that the {person1} [is|are] {state1}.",
        "~I think that the {people1} [are|is] {state1}.",
    ),
    "agreement across an attractor": (
        "The {person1} {near1} the {people2} [is|are] {state1}.",
        "The {people1} {near1} the {person2} [are|is] {state1}.",
        "The {person1} {near1} the {people2} [was|were] {state1}.",
        "The {people1} {near1} the {person2} [were|was] {state1}.",
        "~The {person1} who likes the {people2} [is|are] {state1}.",
        "~The {people1} who like the {person2} [are|is] {state1}.",
    ),
    "determiner-noun agreement": (
        "The {person1} {break1} [this|these] {thing1} in the {place1}.",
        "The {person1} {break1} [these|this] {things1} in the {place1}.",
        "We {break1} [that|those] {thing1} for the {person1}.",
        "We {break1} [those|that] {things1} for the {person1}.",
        "~Please put [this|these] {thing1} in the {place1}.",
        "~Please put [these|this] {things1} in the {place1}.",
    ),
    "reflexive agreement": (
        "The {man1} saw [himself|herself] in the {place1}.",
        "The {woman1} saw [herself|himself] in the {place1}.",
        "The {man1} near the {woman1} hurt [himself|herself].",
        "The {woman1} near the {man1} hurt [herself|himself].",
        "~The {woman1} told the {man1} about [herself|themselves].",
        "~The {people1} told the {man1} about [themselves|herself].",
    ),
    "argument structure": (
        "The {person1} [{sleep1}|{break1}] in the {place1}.",
        "The {person1} [{break1}|{sleep1}] the {thing1} in the {place1}.",
        "Yesterday the {people1} [{sleep1}|{break1}].",
        "Yesterday the {people1} [{break1}|{sleep1}] the {thing1}.",
        "~The {person1} that we met [{sleep1}|{break1}].",
        "~The {person1} that we met [{break1}|{sleep1}] the {things1}.",
    ),
    "verb form": (
        "The {person1} has [{eaten1}|{eat1}] the {thing1} in the {place1}.",
        "The {person1} {can1} [{eat1}|{eaten1}] the {thing1} in the {place1}.",
        "Did the {people1} [{eat1}|{eaten1}] the {things1}?",
        "Have the {people1} [{eaten1}|{eat1}] the {things1}?",
        "~I know that the {person1} had [{eaten1}|{eat1}] it.",
        "~I know that the {person1} might [{eat1}|{eaten1}] it.",
    ),
    "past tense": (
        "The {person1} [{took1}|{taked1}] the {thing1} in the {place1}.",
        "Yesterday the {people1} [{took1}|{taked1}] the {things1}.",
        "~I think that the {person1} [{took1}|{taked1}] it.",
    ),
    "auxiliary fronting": (
        "[Is the {person1} who {can1} {do1} it|{can1} the {person1} who {do1} it is] {state1}?",
        "[Is the {person1} who was here|Was the {person1} who here is] {state1}?",
        "What [{can1} the {person1}|the {person1} {can1}] {do1} in the {place1}?",
        "~Where [{can1} the {people1}|the {people1} {can1}] {do1} it?",
    ),
    "filler and gap": (
        "What did the {person1} {do1} [in|the {thing1} in] the {place1}?",
        "Did the {person1} {do1} [the {thing1} in|in] the {place1}?",
        "~I know what the {person1} {break1} [in|the {thing1} in] the {place1}.",
        "~I know that the {person1} {break1} [the {thing1} in|in] the {place1}.",
    ),
    "word order": (
        "The {person1} {break1} [the {thing1}|{thing1} the] in the {place1}.",
        "The {person1} [{can1} {do1}|{do1} {can1}] the {thing1}.",
        "The {state1} [{person1} {sleep1}|{sleep1} {person1}] in the {place1}.",
        "The {people1} {sleep1} [in the {place1}|the {place1} in].",
        "~We saw [the {person1}|{person1} the] near the {place1}.",
    ),
    "pronoun case": (
        "[She|Her] {break1} the {thing1} near [him|he].",
        "[He|Him] {break1} the {thing1} near [her|she].",
        "The {person1} and [they|them] met [us|we] in the {place1}.",
        "~[They|Them] told [us|we] about the {thing1}.",
    ),
    "negative polarity": (
        "[No|The] {person1} that [the|no] {people2} like has ever {eaten1} it.",
        "[No|The] {people1} near [the|no] {people2} have ever {eaten1} the {things1}.",
        "[Nobody|Somebody] said that [somebody|nobody] had ever {eaten1} the {thing1}.",
        "~[No|The] {person1} {near1} [the|no] {thing1} was ever {state1}.",
    ),
}

# The two easy ones count double: they give a small model something to hold on to.
WEIGHTS = dict.fromkeys(PHENOMENA, 1) | {"past tense": 2, "word order": 2}


def choose(template: str, alternative: int) -> str:
    """`[acceptable|unacceptable]` -> the one or the other."""
    return re.sub(r"\[(.*?)\]", lambda m: m[1].split("|")[alternative], template)


def fill(draw: Draw, template: str) -> str:
    """A word for each slot, the same wherever the slot is named again, none twice."""
    words: dict[str, str] = {}
    for slot in re.findall(r"\{(\w+?)\}", template):
        name = slot.rstrip("0123456789")
        if name in FORMS and slot not in words:
            forms = draw.pick(LEXICON[FORMS[name][0]]).split("/")
            words |= {f"{form}1": word for form, word in zip(FORMS[name], forms, strict=True)}
        elif slot not in words:
            words[slot] = draw.pick(LEXICON[name], avoid=list(words.values()))
    return template.format(**words)


def rows(draw: Draw) -> list[Row]:
    """Both members of one minimal pair (sometimes only the acceptable one)."""
    phenomenon = draw.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    filled = fill(draw, draw.pick(PHENOMENA[phenomenon], held_out=0.25))
    pair = []
    for label, alternative in ((1, 0), (0, 1)):
        sentence = choose(filled, alternative)
        pair.append({"sentence": sentence[0].upper() + sentence[1:], "label": label})
    return pair[:1] if draw.chance(0.2) else pair
