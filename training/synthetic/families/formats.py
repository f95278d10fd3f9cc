"""Families over formats: names, numbers, identifiers, addresses, templates."""

import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import CITIES, NAMES, SURNAMES, WORDS
from training.synthetic.variant import Variant

DOMAINS = ("example.com", "mail.example", "post.test", "acme.test", "corp.example", "shop.invalid")
SPELLINGS = {
    "snake_case": lambda w: "_".join(w),
    "kebab-case": lambda w: "-".join(w),
    "camelCase": lambda w: w[0] + "".join(map(str.capitalize, w[1:])),
    "PascalCase": lambda w: "".join(map(str.capitalize, w)),
    "UPPER_CASE": lambda w: "_".join(w).upper(),
    "dot.case": lambda w: ".".join(w),
    "Title Case": lambda w: " ".join(map(str.capitalize, w)),
    "Train-Case": lambda w: "-".join(map(str.capitalize, w)),
    "path/case": lambda w: "/".join(w),
    "UPPER-KEBAB": lambda w: "-".join(w).upper(),
}
MARKUP = (
    ("**", "**"), ("<b>", "</b>"), ("`", "`"), ("[", "]"), ("_", "_"), ("{{", "}}"), ("<", ">"),
    ("((", "))"), ("'", "'"), ("~~", "~~"), ("<i>", "</i>"), ("«", "»"),
)  # fmt: skip
FRAMES = (
    "{a} from {b}", "{b}: {a}", "Dear {a} in {b},", "{a} ({b})", "{a} lives in {b}.", "{b} - {a}",
    "<{a}> {b}", "{a}, {b}!", "To {b} for {a}", "{b} has {a}", "[{b}] {a}", "{a} -> {b}",
)  # fmt: skip


def person_format(rng: random.Random) -> Variant:
    """A name of two parts in another form."""
    forms = {
        "Archer, Zoe": "{1}, {0}", "Z. Archer": "{2}. {1}", "Archer, Z.": "{1}, {2}.",
        "Zoe A.": "{0} {3}.", "Archer Zoe": "{1} {0}", "Z.A.": "{2}.{3}.", "A.Z.": "{3}.{2}.",
        "ARCHER Zoe": "{4} {0}", "Zoe ARCHER": "{0} {4}", "Archer/Zoe": "{1}/{0}", "ZA": "{2}{3}",
        "Archer Z": "{1} {2}", "AZ": "{3}{2}", "Zoe_Archer": "{0}_{1}",
    }  # fmt: skip
    sample = rng.choice(tuple(forms))
    comma = rng.random() < 0.5
    title = rng.choice(("", "", "Dr. ", "Mx. ", "Guest: ", "c/o ", "@"))

    def row(r: random.Random) -> tuple[str, str]:
        a, b = r.choice(NAMES), r.choice(SURNAMES)
        text = f"{b}, {a}" if comma else f"{a} {b}"
        return text, title + forms[sample].format(a, b, a[0], b[0], b.upper())

    source = "Archer, Zoe" if comma else "Zoe Archer"
    do = f'write the name in the form in which "{source}" becomes "{title}{sample}"'
    given = "a surname, a comma and a first name" if comma else "a first name and a surname"
    terse = f'name: "{source}" -> "{title}{sample}", others likewise'
    return build("person_format", (sample, comma, title), Phrases(given, do, terse), row)


def group_digits(rng: random.Random) -> Variant:
    """Digits in groups, counted from an end."""
    size, glue, end = rng.randint(2, 4), rng.choice(" -./_:'"), rng.choice(("left", "right"))
    total = rng.choice((7, 8, 9, 10, 11))
    left = rng.choice(("", "", "+", "No. ", "#", "00"))

    def row(r: random.Random) -> tuple[str, str]:
        digits = "".join(r.choices("123456789", k=total))
        skip = 0 if end == "left" else total % size
        parts = [digits[:skip]] * bool(skip)
        parts += [digits[i : i + size] for i in range(skip, total, size)]
        return digits, left + glue.join(parts)

    front = f' and put "{left}" in front' if left else ""
    do = f'group the digits by {size}, counting from the {end}, with "{glue}" between groups{front}'
    note = f"The group on the {'right' if end == 'left' else 'left'} may be shorter."
    terse = f'{total} digits: groups of {size} from the {end}, "{glue}" between{front}'
    return build("group_digits", (size, glue, end, total, left),
                 Phrases(f"a number of {total} digits", do, terse, (note,)), row)  # fmt: skip


def respell_identifier(rng: random.Random) -> Variant:
    """An identifier of several words in another spelling."""
    source, target = rng.sample(tuple(SPELLINGS), 2)
    fewer = rng.choice(("", "", " without its first word", " without its last word"))

    def row(r: random.Random) -> tuple[str, str]:
        words = r.sample(WORDS, r.randint(2, 3))
        kept = words[1:] if "first" in fewer else words[:-1] if fewer else words
        return SPELLINGS[source](words), SPELLINGS[target](kept)

    phrases = Phrases(f"an identifier in {source}", f"rewrite it{fewer} in {target}",
                      f"{source} -> {target}{fewer}")  # fmt: skip
    return build("respell_identifier", (source, target, fewer), phrases, row)


def mask_text(rng: random.Random) -> Variant:
    """Characters at one end hidden, or all but these."""
    n, end, hide = rng.randint(2, 5), rng.choice(("first", "last")), rng.random() < 0.4
    sign = rng.choice("*#xX•-?")
    what = f"the {end} {n} characters" if hide else f"all but the {end} {n} characters"

    def row(r: random.Random) -> tuple[str, str]:
        code = "".join(r.choices("ABCDEFGHJKLMNP123456789", k=r.randint(7, 10)))
        edge = [(i < n) if end == "first" else (i >= len(code) - n) for i in range(len(code))]
        return code, "".join(sign if e == hide else c for c, e in zip(code, edge, strict=True))

    do = f'replace {what} by "{sign}", one for each'
    phrases = Phrases("a code of letters and digits", do, f'{what} -> "{sign}" each')
    return build("mask_text", (n, end, hide, sign), phrases, row)


def pad_number(rng: random.Random) -> Variant:
    """A number filled up to a width, with something around."""
    width, fill = rng.randint(5, 9), rng.choice("0.-_*x")
    side, mark = rng.choice(("left", "right")), rng.choice(("", "", "ID-", "#", "T", "n="))

    def row(r: random.Random) -> tuple[str, str]:
        x = str(r.randint(1, 9999))
        return x, mark + (x.rjust(width, fill) if side == "left" else x.ljust(width, fill))

    front = f'; then put "{mark}" in front' if mark else ""
    do = f'fill it up on the {side} with "{fill}" to {width} characters{front}'
    terse = f'pad {side} with "{fill}" to {width}{front}'
    return build("pad_number", (width, fill, side, mark),
                 Phrases("a whole number", do, terse), row)  # fmt: skip


def fill_template(rng: random.Random) -> Variant:
    """A template with two places filled from a record."""
    frame, glue = rng.choice(FRAMES), rng.choice((", ", "; ", " | ", "/", " = ", " & "))
    swapped, upper = rng.random() < 0.5, rng.choice(("", "", "name", "city"))
    order = ("a city", "a name") if swapped else ("a name", "a city")

    def row(r: random.Random) -> tuple[str, str]:
        name, city = r.choice(NAMES), r.choice(CITIES)
        filled = frame.format(a=name.upper() if upper == "name" else name,
                              b=city.upper() if upper == "city" else city)  # fmt: skip
        return glue.join((city, name) if swapped else (name, city)), filled

    shown = frame.format(a="NAME", b="CITY")
    note = (f"Write the {upper} in capital letters.",) if upper else ()
    note = note or ("Keep upper and lower case of both.",)
    given = f'{order[0]} and {order[1]}, separated by "{glue}"'
    terse = f'{order[0]}{glue}{order[1]} -> "{shown}"' + (f", {upper} in capitals" if upper else "")
    do = f'fill in the template "{shown}"'
    return build("fill_template", (frame, glue, swapped, upper),
                 Phrases(given, do, terse, note), row)  # fmt: skip


def file_part(rng: random.Random) -> Variant:
    """A part of a path, or the path with another ending."""
    new = rng.choice(("txt", "bak", "csv", "md", "old", "json", "tmp", "pdf"))
    parts = {
        "the file name without folders": lambda f, s, e: f"{s}.{e}",
        "the file name without folders and extension": lambda f, s, e: s,
        "the extension without the dot": lambda f, s, e: e,
        "the folders without the file name": lambda f, s, e: "/".join(f),
        "the first folder": lambda f, s, e: f[0],
        "the folder that holds the file": lambda f, s, e: f[-1],
        f"the whole path with the extension {new}": lambda f, s, e: "/".join((*f, f"{s}.{new}")),
        f"the file name alone with the extension {new}": lambda f, s, e: f"{s}.{new}",
    }
    part, case = rng.choice(tuple(parts)), rng.choice(("as it stands", "in capital letters"))

    def row(r: random.Random) -> tuple[str, str]:
        *folders, stem = r.sample(WORDS, r.randint(3, 4))
        end = r.choice(("png", "log", "html", "xml", "yaml", "zip", "py"))
        found = parts[part](folders, stem, end)
        return f"{'/'.join(folders)}/{stem}.{end}", found.upper() if "capital" in case else found

    phrases = Phrases("the path of a file", f"give {part}, {case}", f"path -> {part}, {case}")
    return build("file_part", (part, case), phrases, row)


def build_address(rng: random.Random) -> Variant:
    """An e-mail address made from a name."""
    domain, glue = rng.choice(DOMAINS), rng.choice((".", "_", "-", ""))
    pattern = rng.choice(("{0}{g}{1}", "{1}{g}{0}", "{2}{g}{1}", "{1}{g}{2}", "{0}{g}{3}",
                          "{3}{g}{0}"))  # fmt: skip

    def address(a: str, b: str) -> str:
        return pattern.format(a, b, a[0], b[0], g=glue).lower() + "@" + domain

    def row(r: random.Random) -> tuple[str, str]:
        a, b = r.choice(NAMES), r.choice(SURNAMES)
        return f"{a} {b}", address(a, b)

    do = f"write the person's e-mail address, as {address('Zoe', 'Archer')} is that of Zoe Archer"
    phrases = Phrases("the name of a person", do,
                      f"name -> e-mail, Zoe Archer = {address('Zoe', 'Archer')}")  # fmt: skip
    return build("build_address", (domain, glue, pattern), phrases, row)


def mark_up(rng: random.Random) -> Variant:
    """Marks around one word of a phrase or around all others."""
    (left, right), place = rng.choice(MARKUP), rng.choice(("first", "last", "longest", "shortest"))
    rest = rng.random() < 0.35
    which = f"every word except the {place} one" if rest else f"the {place} word"

    def row(r: random.Random) -> tuple[str, str]:
        by_length = {len(w): w for w in r.sample(WORDS, 6)}
        words = r.sample(list(by_length.values()), min(4, len(by_length)))
        chosen = {"first": words[0], "last": words[-1], "longest": max(words, key=len),
                  "shortest": min(words, key=len)}[place]  # fmt: skip
        marked = [f"{left}{w}{right}" if (w == chosen) != rest else w for w in words]
        return " ".join(words), " ".join(marked)

    do = f"put {left} directly before and {right} directly after {which}, and repeat the rest"
    terse = f"{which}: inside {left}{right}; repeat the rest"
    return build("mark_up", (left, place, rest), Phrases("a few words", do, terse), row)


FORMAT_FAMILIES = (
    person_format, group_digits, respell_identifier, mask_text, pad_number, fill_template,
    file_part, build_address, mark_up,
)  # fmt: skip
