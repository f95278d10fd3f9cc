"""Settings: who asks, and where; they make a description unlike all others, and change nothing.

Each holds an invented name. Numbers give different names, so texts with different numbers differ.
"""

import random

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_SYLLABLES = [c + v for c in _CONSONANTS for v in _VOWELS]
_WHOLE = len(_SYLLABLES) ** 3  # names of three syllables
_STEP = 355_687  # shares no divisor with _WHOLE, so multiples of it go through all of them
_PERSONS = (
    "Ada", "Bo", "Carla", "Deniz", "Elif", "Femi", "Gita", "Hugo", "Ines", "Jonas", "Kofi", "Lena",
    "Milo", "Nadia", "Otto", "Pia", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Vito", "Wanda",
)  # fmt: skip
_PLACES = (
    "office", "shop", "club", "team", "support desk", "newsletter", "archive", "school", "depot",
    "workshop", "pilot project", "front desk", "forum", "data room", "bot", "back office",
)  # fmt: skip
SETTINGS = (
    "For the {name} {place}: {text}",
    "{text}\n\nThanks, {person} ({name})",
    "Hi, {person} from {name} here. {text}",
    "[{name}] {text}",
    "# {name} {place}\n\n{text}",
    "{text} This is for the {name} {place}.",
    "Project {name}. {text}",
    "{text}\n-- {person}, {name} {place}",
    "You work for the {name} {place}. {text}",
    "The {name} {place} asks for this.\n{text}",
    "{text} (asked by {name})",
    "{person} at the {name} {place} wants this done: {text}",
    "Context: {name} {place}\n\n{text}",
    "{name} {place} guide, part {number}\n{text}",
    "ticket {number} / {name}: {text}",
    "Hello from {name}! {text}",
    "{text}\n\nBest, {person}, {name}",
    "Rule {number} of the {name} {place}: {text}",
)


def invented_name(number: int) -> str:
    """A name of three syllables or more; different for different numbers, which start at 0."""
    whole, rest = divmod(number, _WHOLE)
    place, name = rest * _STEP % _WHOLE, ""
    for _ in range(3):
        place, syllable = divmod(place, len(_SYLLABLES))
        name += _SYLLABLES[syllable]
    while whole:
        whole, syllable = divmod(whole - 1, len(_SYLLABLES))
        name += _SYLLABLES[syllable]
    return name.capitalize()


def in_a_setting(text: str, number: int, rng: random.Random) -> str:
    """A description with who asks or where; no text with another number is the same."""
    return rng.choice(SETTINGS).format(
        text=text,
        name=invented_name(number),
        person=rng.choice(_PERSONS),
        place=rng.choice(_PLACES),
        number=rng.randint(1, 99),
    )
