"""sst2: does the reviewer end up pleased? Both polarities are named; composition decides.

A *phrase* is a modifier and an adjective, and its polarity is the product of theirs ("far from
dull" is praise). A *frame* holds a winning phrase {win}, which gives the label, and mostly a
losing one {lose} of the opposite polarity. Rows come in pairs: exchanging the two phrases keeps
the bag of words and flips the label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shrinkbench_bert.mini_glue import Draw, Row

ASPECTS = (
    "acting, plot, script, ending, dialogue, music, pacing, humour, story, romance, cast, "
    "camerawork, ~soundtrack, ~editing, ~finale"
)
ADJECTIVES = {
    +1: (
        "superb, delightful, clever, moving, brilliant, charming, gripping, funny, elegant, "
        "wonderful, ~dazzling, ~lovely, ~thrilling"
    ),
    -1: (
        "dull, clumsy, boring, tedious, awful, bland, lifeless, terrible, stupid, messy, "
        "~dreary, ~horrible, ~lame"
    ),
}
MODIFIERS = {
    +1: "quite, truly, rather, always, simply, ~really",
    -1: "not, never, hardly, far from, anything but, ~not at all",
}

FRAMES = {
    "plain": (
        "The {x} was {win}.",
        "I must say that the {x} was {win}.",
        "To me and my friends the {x} seemed {win}.",
        "~In the end I thought the {x} was {win}.",
    ),
    "contrast": (
        "The {x} was {lose}, but the {y} was {win}.",
        "Although the {x} was {lose}, the {y} was {win}.",
        "The {y} was {win}, although the {x} was {lose}.",
        "The {x} was {lose}; still, the {y} was {win}.",
        "~The {x} was {lose}, however the {y} was {win}.",
        "~Even though the {x} was {lose}, the {y} was {win}.",
    ),
    "expectation": (
        "I expected the {x} to be {lose}, but it was {win}.",
        "Critics said the {x} was {lose}; in truth it was {win}.",
        "The {x} was {win}, though I was told it would be {lose}.",
        "~Everyone thinks the {x} is {lose}, but I found it {win}.",
    ),
    "change": (
        "The {x} used to be {lose} and is now {win}.",
        "The {x} is now {win} and used to be {lose}.",
        "~The {x} was once {lose} and is now {win}.",
    ),
    "comparison": (
        "The {x} was more {win_adjective} than {lose_adjective}.",
        "The {x} was less {lose_adjective} than {win_adjective}.",
        "The {x} was {win_adjective} rather than {lose_adjective}.",
        "~The {x} was not so much {lose_adjective} as {win_adjective}.",
    ),
}
WEIGHTS = {"plain": 6, "contrast": 4, "expectation": 2, "change": 1, "comparison": 1}
NEGATED = 0.2  # how often a phrase says its polarity by negating the other one


def phrase(draw: Draw, polarity: int) -> tuple[str, str]:
    """("far from dull", "charming"): a phrase of this polarity, and a bare adjective of it."""
    modifier = -1 if draw.chance(NEGATED) else +1
    adjective = draw.pick(ADJECTIVES[modifier * polarity])
    return f"{draw.pick(MODIFIERS[modifier])} {adjective}", draw.pick(ADJECTIVES[polarity])


def rows(draw: Draw) -> list[Row]:
    """One frame, filled for both labels (sometimes only for the positive one)."""
    kind = draw.rng.choices(list(FRAMES), list(WEIGHTS.values()))[0]
    frame = draw.pick(FRAMES[kind], held_out=0.25)
    x = draw.pick(ASPECTS)
    y = draw.pick(ASPECTS, avoid=[x])
    praise, blame = phrase(draw, +1), phrase(draw, -1)
    pair = []
    for label, win, lose in ((1, praise, blame), (0, blame, praise)):
        sentence = frame.format(
            x=x, y=y, win=win[0], lose=lose[0], win_adjective=win[1], lose_adjective=lose[1]
        )
        pair.append({"sentence": sentence, "label": label})
    return pair[:1] if draw.chance(0.2) else pair
