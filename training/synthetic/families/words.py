"""The vocabulary that procedural families share, written for them: words, names, cities, labels."""

import random
from collections.abc import Callable


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THEMES: dict[str, tuple[str, ...]] = {
    theme: _words(words)
    for theme, words in {
        "animals": """badger otter falcon lizard camel donkey beaver walrus pigeon ferret monkey
            rabbit turtle spider salmon parrot zebra weasel heron gopher lobster hamster
            antelope buffalo cheetah dolphin elephant flamingo giraffe hedgehog jaguar kangaroo""",
        "fruits": """apple banana cherry orange lemon mango papaya quince peach apricot
            grape melon lychee guava raspberry blueberry pomegranate fig plum pear kiwi
            coconut nectarine tangerine cranberry gooseberry date lime""",
        "colours": """amber beige black bronze copper coral crimson cyan ebony emerald gold gray
            green indigo ivory khaki lavender magenta maroon navy olive pink purple scarlet silver
            teal turquoise violet white yellow""",
        "tools": """hammer wrench chisel drill ladder pliers shovel rake bucket trowel lathe
            scissors stapler ruler sander clamp crowbar mallet tweezers anvil pulley spanner
            axe hoe saw file torch""",
        "foods": """bread butter cheese noodles pasta pancake pizza porridge pudding risotto
            salad sandwich sausage soup stew waffle yogurt omelette dumpling burrito cracker
            biscuit chowder muffin pretzel ham tofu""",
        "household items": """lamp kettle pillow blanket curtain carpet mirror candle drawer toaster
            basket broom cushion freezer wardrobe bookshelf teapot saucepan doormat clock
            vase sofa bench stool towel""",
        "instruments": """guitar violin trumpet clarinet piano cello drum flute harp oboe banjo
            tuba organ accordion harmonica saxophone trombone mandolin ukulele xylophone
            bassoon viola zither gong""",
        "plants": """tulip daisy orchid clover fern ivy maple cedar willow birch poplar cactus
            bamboo lotus thistle juniper magnolia dandelion sunflower lilac heather nettle
            moss oak""",
    }.items()
}
NAMES = _words(
    """
    Amara Bruno Carla Dmitri Elena Farid Greta Hugo Ines Jonas Katya Liam Mira Nadia Omar
    Petra Quentin Rosa Stefan Tara Ulrich Vera Wanda Xavier Yusuf Zoe Anselm Birgit Cyrus
    Dalia Edgar Fiona Gustav Helga Igor Judith Kenji Leila Marco Nora Oscar Priya Rashid Selma
    Tobias Ursula Viktor Wesley Yara Zoltan
    """
)
SURNAMES = _words(
    """
    Abbott Berger Castillo Dufour Eriksen Fontaine Grover Hansen Ibarra Jansen Kowalski
    Lindgren Moreau Novak Okafor Pereira Quigley Rossi Schmidt Tanaka Underwood Vargas
    Whitfield Yamada Zimmer Archer Bishop Coleman Dalton Ellison Fletcher Gibbons Harlow
    Ingram Jarvis Kendrick
    """
)
CITIES = _words(
    """
    Accra Athens Bergen Bogota Bremen Cairo Calgary Dakar Denver Dublin Florence Geneva
    Glasgow Hanoi Havana Helsinki Istanbul Jakarta Krakow Lagos Lima Lisbon Lyon Madrid Manila
    Montreal Nairobi Naples Osaka Oslo Porto Prague Quito Riga Salzburg Santiago Seoul Sofia
    Sydney Tallinn Toronto Tunis Valencia Vienna Warsaw Zagreb Zurich
    """
)
PRODUCTS = _words(
    """
    headphones keyboard monitor router webcam charger tablet printer speaker microphone
    backpack notebook stapler umbrella thermos bicycle helmet jacket sandals sweater scarf
    gloves raincoat sunglasses suitcase tent hammock lantern compass binoculars blender
    dishwasher vacuum heater mattress armchair desk puzzle skateboard telescope
    """
)
SINGULAR_PRODUCTS = tuple(product for product in PRODUCTS if not product.endswith("s"))
DEPARTMENTS = _words(
    """
    accounting billing catering compliance design dispatch engineering facilities finance
    insurance legal logistics maintenance marketing operations payroll procurement purchasing
    recruiting reception research returns sales security shipping support training translation
    treasury warehouse
    """
)
ADJECTIVES = _words(
    """
    ancient bright careful clever curious dusty eager fancy gentle golden heavy hollow jolly
    lonely modest narrow noisy patient plain polite proud quiet rapid rough rusty shiny silent
    simple sleepy steady stubborn tiny tired wooden young
    """
)
VERBS = _words(
    """
    admires borrows carries chases cleans collects covers draws drops finds follows forgets
    guards hides holds inspects leaves lifts moves notices orders paints passes polishes pulls
    pushes repairs returns sells sketches steals touches watches weighs
    """
)
NONSENSE = _words(
    """
    blick dorp fenk glarn hulb jask kreb lomp mizzle narp ombel plock quorn ruftle snabe
    trindle ulk vosk wembit yarp zindle brannet clume drissel epple frosk grindel hask
    """
)
KEYS = _words(
    """
    id name title city country status owner email phone price amount total level rank score
    count size weight colour brand model code region team role stage channel source priority
    category
    """
)
WORDS = tuple(sorted({w for theme in THEMES.values() for w in theme} | {*PRODUCTS, *DEPARTMENTS}))
LONG_WORDS = tuple(w for w in WORDS if len(w) >= 6)
SEPARATORS = (", ", "; ", " | ", " / ", " > ", " + ", " - ", " ")
VISIBLE_SEPARATORS = SEPARATORS[:-1]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
PAIRS = (
    ("yes", "no"), ("true", "false"), ("Y", "N"), ("1", "0"), ("pass", "fail"),
    ("accept", "reject"), ("OK", "not OK"), ("match", "no match"), ("valid", "invalid"),
    ("positive", "negative"), ("good", "bad"), ("keep", "drop"), ("allow", "deny"),
    ("approved", "declined"), ("T", "F"), ("in", "out"), ("go", "stop"), ("right", "wrong"),
    ("agree", "disagree"), ("ja", "nein"), ("oui", "non"), ("Yes", "No"), ("TRUE", "FALSE"),
)  # fmt: skip


def two_labels(rng: random.Random) -> tuple[str, str]:
    """Answers for "it holds" and "it does not": a usual pair, or two words that say nothing."""
    if rng.random() < 0.4:
        return rng.choice(PAIRS)
    first, second = some_labels(rng, 2)
    return first, second


def some_labels(rng: random.Random, n: int) -> list[str]:
    """n labels that say nothing of what they stand for: colours, made-up words, codes, letters."""
    pool = rng.choice((THEMES["colours"], NONSENSE, DEPARTMENTS, tuple("ABCDEFGHKLMNPQ"), ()))
    return rng.sample(pool, n) if pool else some_codes(rng, n)


def some_codes(rng: random.Random, n: int) -> list[str]:
    """n different codes of one shape, such as K4, QX-17 or 305."""
    shape = rng.choice(("A9", "AA-99", "999", "AA9", "9A", "AAA"))
    codes: list[str] = []
    while len(codes) < n:
        code = "".join(
            rng.choice("ABCDEFGHKLMNPQRTUVWXYZ") if c == "A" else rng.choice("123456789")
            if c == "9" else c
            for c in shape
        )  # fmt: skip
        codes += [code] if code not in codes else []
    return codes


def office_words(rng: random.Random) -> dict[str, str]:
    """A thing (a), what it is like (b), a name, a city and a department, for slots of patterns."""
    return {"a": rng.choice(SINGULAR_PRODUCTS), "b": rng.choice(ADJECTIVES),
            "name": rng.choice(NAMES), "city": rng.choice(CITIES),
            "department": rng.choice(DEPARTMENTS)}  # fmt: skip


def a_sentence(rng: random.Random) -> str:
    """A lower-case sentence of seven to twelve words without a full stop."""
    theme = rng.choice(("animals", "tools", "household items", "instruments"))
    pattern = rng.choice((
        "the {a} {x} {v} the {b} {y} near the {z}",
        "a {a} {x} {v} one {y} and the {b} {z}",
        "every {x} {v} the {a} {y} before the {b} {z} arrives",
        "today the {x} {v} a {a} {y} in the {b} {z}",
    ))  # fmt: skip
    a, b = rng.sample(ADJECTIVES, 2)
    x = rng.choice(THEMES["animals"])
    y, z = rng.sample([w for w in THEMES[theme] if w != x], 2)
    return pattern.format(a=a, b=b, v=rng.choice(VERBS), x=x, y=y, z=z)


def balanced_word(rng: random.Random, test: Callable[[str], bool]) -> str:
    """A word that passes the test or fails it, with even chances where both exist."""
    wanted = rng.random() < 0.5
    return next((w for w in rng.sample(WORDS, len(WORDS)) if test(w) == wanted), WORDS[0])


def position(n: int, end: str) -> str:
    """The n-th place, from 1, counted from an end: "third" from "start", "third-to-last"."""
    if end == "start":
        return ORDINALS[n - 1]
    return "last" if n == 1 else f"{ORDINALS[n - 1]}-to-last"
