"""Families that turn a text into what a program reads: commands, queries, addresses, JSON."""

import json
import random
from urllib.parse import quote, quote_plus

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.texts.documents import a_document
from training.synthetic.families.texts.extraction import NUMBERS
from training.synthetic.families.texts.kinds import KINDS, Kind
from training.synthetic.families.words import KEYS, NAMES, NONSENSE, PRODUCTS
from training.synthetic.variant import Variant

PLAIN = (*NUMBERS, "city", "name", "number", "department", "date", "time", "level", "service")
FLAGS = ("--{k} {v}", "--{k}={v}", "-{k[0]} {v}", "{k}={v}", "/{k}:{v}", "{k}({v})", "@{k} {v}")
TOOLS = ("book", "add", "create", "log", "send", "register", "track", "file", "open", "note")
COUNTED = (
    "{x} and {y} for {name}", "{name} needs {x} and {y}.", "Please pack {x} and {y} ({name})",
    "order of {name}: {x}, {y}", "Hi, {x} plus {y} please. {name}",
)  # fmt: skip


def _some(rng: random.Random, most: int) -> tuple[Kind, list[str]]:
    """A kind of text, and some of its facts that need no care with signs."""
    kind = rng.choice(tuple(KINDS.values()))
    slots = [slot for slot in kind.called if slot in PLAIN]
    return kind, rng.sample(slots, rng.randint(1, min(most, len(slots))))


def text_to_command(rng: random.Random) -> Variant:
    """A command with facts of the text as its options."""
    kind, slots = _some(rng, 3)
    tool = rng.choice((*TOOLS, *NONSENSE))
    flag = rng.choice(FLAGS)
    quoted = rng.random() < 0.5 or bool({"name", "date", "time"} & {*slots})  # they hold spaces
    if "[0]" in flag and len({slot[0] for slot in slots}) < len(slots):
        flag = FLAGS[0]
    mark = '"' if quoted else ""

    def line(values: dict[str, str]) -> str:
        options = (flag.format(k=slot, v=f"{mark}{values[slot]}{mark}") for slot in slots)
        return " ".join((tool, *options))

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        return document.text, line({slot: document.shown[slot] for slot in slots})

    shown = line({slot: slot.upper() for slot in slots})
    note = f"{kind.legend(slots)}, as in the text."
    do = f"write the command `{shown}` with the words in capitals filled in"
    return build("text_to_command", (kind.given, shown),
                 Phrases(kind.given, do, f"{kind.given} -> `{shown}`; {note}", (note,)),
                 row)  # fmt: skip


def text_to_query(rng: random.Random) -> Variant:
    """A query of a table by facts of the text."""
    kind, slots = _some(rng, 2)
    table, column = rng.choice((*NONSENSE, "orders", "people", "events")), rng.choice(("*", *KEYS))
    joint = rng.choice(("AND", "OR")) if len(slots) == 2 else ""
    end = rng.choice(("", ";", " LIMIT 1", " LIMIT 10", " ORDER BY id"))

    def query(values: dict[str, str]) -> str:
        where = f" {joint} ".join(f"{slot} = {values[slot]}" for slot in slots)
        return f"SELECT {column} FROM {table} WHERE {where}{end}"

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        values = {s: str(document.values[s]) if s in NUMBERS else f"'{document.shown[s]}'"
                  for s in slots}  # fmt: skip
        return document.text, query(values)

    shown = query({s: s.upper() if s in NUMBERS else f"'{s.upper()}'" for s in slots})
    note = f"{kind.legend(slots)}, as in the text."
    do = f"write the query `{shown}` with the values filled in"
    return build("text_to_query", (kind.given, shown),
                 Phrases(kind.given, do, f"{kind.given} to sql: `{shown}`; {note}", (note,)),
                 row)  # fmt: skip


def text_to_address(rng: random.Random) -> Variant:
    """A web address with facts of the text as its parameters."""
    kind, slots = _some(rng, 2)
    path, plus = rng.choice((*NONSENSE, "search", "new")), rng.random() < 0.5
    host = rng.choice(("example.com", "app.test", "intra.example", "localhost:8000"))

    def row(r: random.Random) -> tuple[str, str]:
        document = a_document(r, kind)
        escape = quote_plus if plus else quote
        pairs = (f"{s}={escape(document.shown[s], safe='')}" for s in slots)
        return document.text, f"https://{host}/{path}?{'&'.join(pairs)}"

    shown = f"https://{host}/{path}?" + "&".join(f"{s}={s.upper()}" for s in slots)
    space = "+" if plus else "%20"
    note = f"{kind.legend(slots)}. Values are percent-encoded, / : , and # too; spaces as {space}."
    do = f"write the address {shown} with the values of the text"
    return build("text_to_address", (kind.given, shown, plus),
                 Phrases(kind.given, do, f"{kind.given} -> {shown}; {note}", (note,)),
                 row)  # fmt: skip


def nested_json(rng: random.Random) -> Variant:
    """Two counted things and a name as nested JSON."""
    thing, count, who, things = rng.sample((*KEYS, *NONSENSE), 4)
    lists, rooted = rng.random() < 0.3, rng.random() < 0.7

    def row(r: random.Random) -> tuple[str, str]:
        (a, b), (n, m), name = r.sample(PRODUCTS, 2), r.sample(range(1, 30), 2), r.choice(NAMES)
        text = r.choice(COUNTED).format(x=f"{n} x {a}", y=f"{m} x {b}", name=name)
        pairs = ((a, n), (b, m))
        entries = [[x, i] if lists else {thing: x, count: i} for x, i in pairs]
        return text, json.dumps({who: name, things: entries} if rooted else entries)

    fields = f'{{"{thing}": "<product>", "{count}": <quantity>}}'
    entry = '["<product>", <quantity>]' if lists else fields
    shape = f"[{entry}, ...]"
    if rooted:
        shape = f'{{"{who}": "<name>", "{things}": {shape}}}'
    note = "Quantities are numbers, without quotes."
    given = "a text with products, their quantities and a name"
    return build("nested_json", (shape,),
                 Phrases(given, f"answer with JSON of the form {shape}",
                         f"{given} -> {shape}. {note}", (note,)), row)  # fmt: skip


STRUCTURE_FAMILIES = (text_to_command, text_to_query, text_to_address, nested_json)
