"""Families that read and write JSON objects with named keys."""

import json
import random

from training.synthetic.families.phrasing import Phrases, build
from training.synthetic.families.words import (
    CITIES,
    KEYS,
    NAMES,
    NONSENSE,
    PRODUCTS,
    VISIBLE_SEPARATORS,
    WORDS,
    two_labels,
)
from training.synthetic.variant import Variant

Record = dict[str, object]


def _values(r: random.Random, keys: list[str]) -> Record:
    """A record with a short word or a number for each key."""
    return {k: r.randint(1, 99) if r.random() < 0.3 else r.choice(WORDS) for k in keys}


def _shuffled(r: random.Random, record: Record) -> Record:
    return {k: record[k] for k in r.sample(list(record), len(record))}


def _named(keys: list[str]) -> str:
    return f"a JSON object with the keys {', '.join(keys)}"


def field_value(rng: random.Random) -> Variant:
    """The value of one key, or of two, joined."""
    keys = rng.sample(KEYS, 4)
    glue, wanted = rng.choice(VISIBLE_SEPARATORS), keys[: rng.randint(1, 2)]
    upper = rng.random() < 0.3
    form = " in capital letters" if upper else ""

    def row(r: random.Random) -> tuple[str, str]:
        record = _shuffled(r, _values(r, keys))
        text = glue.join(str(record[k]) for k in wanted)
        return json.dumps(record), text.upper() if upper else text

    do = f'give the value of "{wanted[0]}"{form}'
    if len(wanted) == 2:
        do = f'give the values of "{wanted[0]}" and "{wanted[1]}" joined with "{glue}"{form}'
    shown = ", ".join(keys)
    return build(
        "field_value",
        (*keys, len(wanted), glue if len(wanted) == 2 else "", upper),
        Phrases(f"{_named(sorted(keys))} in any order", do, f"json ({shown}): {do}"),
        row,
    )


def line_to_json(rng: random.Random) -> Variant:
    """A line of three values as JSON with named keys."""
    keys, glue = rng.sample(KEYS, 3), rng.choice(VISIBLE_SEPARATORS)
    order = rng.sample(range(3), 3)
    places = ("first", "second", "third")

    def row(r: random.Random) -> tuple[str, str]:
        values = [r.choice(NAMES), r.choice(PRODUCTS), r.choice(CITIES)]
        return glue.join(values), json.dumps(
            {k: values[i] for k, i in zip(keys, order, strict=True)}
        )

    pairs = [f'"{k}" for the {places[i]} value' for k, i in zip(keys, order, strict=True)]
    do = f"turn the line into JSON with these keys in this order: {', '.join(pairs)}"
    sample = json.dumps({k: f"value {i + 1}" for k, i in zip(keys, order, strict=True)})
    return build("line_to_json", (*keys, glue, order),
                 Phrases(f'three values separated by "{glue}"', do,
                         f'values split at "{glue}" -> {sample}'), row)  # fmt: skip


def json_to_line(rng: random.Random) -> Variant:
    """The values of an object as a line, in a drawn order of keys."""
    keys, glue = rng.sample(KEYS, 3), rng.choice(VISIBLE_SEPARATORS)
    form = rng.choice(("{v}", "{k}={v}", "{k}: {v}", "{v} ({k})", "<{v}>", "{k}/{v}"))

    def row(r: random.Random) -> tuple[str, str]:
        record = _shuffled(r, _values(r, keys))
        return json.dumps(record), glue.join(form.format(k=k, v=record[k]) for k in keys)

    sample = glue.join(form.format(k=k, v=k.upper()) for k in keys)
    do = f"write the object as a line in the form {sample}"
    note = "Values stand in the place of the words in capitals, without quotes."
    terse = f"json -> {sample} (capitals: values, no quotes)"
    phrases = Phrases(_named(sorted(keys)), do, terse, (note,))
    return build("json_to_line", (*keys, glue, form), phrases, row)


def rename_field(rng: random.Random) -> Variant:
    """One key renamed, dropped or kept alone."""
    (key, *others), new = rng.sample(KEYS, 3), rng.choice(NONSENSE)
    keys = [key, *sorted(others)]
    act = rng.choice(("rename", "remove", "keep"))
    do = {"rename": f'rename the key "{key}" to "{new}"', "remove": f'remove "{key}"',
          "keep": f'keep only "{key}" and remove the other keys'}[act]  # fmt: skip

    def row(r: random.Random) -> tuple[str, str]:
        record = _shuffled(r, {k: r.choice(WORDS) for k in keys})
        kept = {new if act == "rename" and k == key else k: v for k, v in record.items()
                if act == "rename" or (k == key) == (act == "keep")}  # fmt: skip
        return json.dumps(record), json.dumps(kept)

    note = "Answer with JSON and leave the rest and its order unchanged."
    shown = ", ".join(keys[1:])
    return build(
        "rename_field",
        (do, *keys[1:]),
        Phrases(
            _named(sorted(keys)),
            do,
            f"json (also with {shown}): {do}, rest and order as is",
            (note,),
        ),
        row,
    )


def extreme_key(rng: random.Random) -> Variant:
    """The key, or the value, of the largest or smallest number of an object."""
    most, ask = rng.choice(("largest", "smallest")), rng.choice(("key", "value", "both"))
    pool = rng.choice((("product", PRODUCTS), ("person", NAMES), ("city", CITIES)))
    form = rng.choice(("{k}={v}", "{k} ({v})", "{v} {k}", "{k}: {v}", "{k}/{v}"))
    form = {"key": "{k}", "value": "{v}"}.get(ask, form)
    left = rng.choice(("", "> ", "#", "winner ", "= ", "[!] "))

    def row(r: random.Random) -> tuple[str, str]:
        n = r.randint(3, 4)
        record = dict(zip(r.sample(pool[1], n), r.sample(range(1, 99), n), strict=True))
        key = (max if most == "largest" else min)(record, key=record.__getitem__)
        return json.dumps(record), left + form.format(k=key, v=record[key])

    shown = left + form.format(k="KEY", v="NUMBER")
    do = f'find the entry with the {most} number and answer in the form "{shown}"'
    return build("extreme_key", (most, pool[0], form, left),
                 Phrases(f"a JSON object with a number for each {pool[0]}", do,
                         f'json, {pool[0]} to number: {most} one as "{shown}"'), row)  # fmt: skip


def array_entry(rng: random.Random) -> Variant:
    """The first, last or number of entries of an array under a key."""
    key, other = rng.sample(KEYS, 2)
    asks = {
        f'the first entry of "{key}"': lambda v: v[0],
        f'the last entry of "{key}"': lambda v: v[-1],
        f'the number of entries of "{key}"': len,
        f'the second entry of "{key}"': lambda v: v[1],
        f'the entries of "{key}" joined with " + "': " + ".join,
        f'the entries of "{key}" in reverse, joined with " + "': lambda v: " + ".join(v[::-1]),
    }
    ask = rng.choice(tuple(asks))

    def row(r: random.Random) -> tuple[str, str]:
        n = r.randint(2, 4)
        pool = r.sample(PRODUCTS, n + 2)
        record: Record = {key: pool[:n], other: pool[n:]}
        return json.dumps(_shuffled(r, record)), str(asks[ask](pool[:n]))

    first, second = sorted((key, other))
    given = f'a JSON object with the arrays "{first}" and "{second}"'
    phrases = Phrases(given, f"give {ask}", f"json arrays {first}, {second}: {ask}")
    return build("array_entry", (ask, other), phrases, row)


def flag_label(rng: random.Random) -> Variant:
    """A label by a true or false field, beside one that does not matter."""
    key, other = rng.sample(("active", "paid", "urgent", "open", "signed", "public", "verified",
                             "shipped", "archived", "locked", "ready", "billed"), 2)  # fmt: skip
    yes, no = two_labels(rng)
    value = rng.random() < 0.5
    shown = json.dumps(value)

    def row(r: random.Random) -> tuple[str, str]:
        record: Record = {key: r.random() < 0.5, other: r.random() < 0.5, "id": r.randint(1, 99)}
        return json.dumps(_shuffled(r, record)), yes if record[key] == value else no

    do = f'answer "{yes}" if "{key}" is {shown}, and "{no}" otherwise'
    note = f'The fields "{other}" and "id" do not matter.'
    return build("flag_label", (key, other, yes, no, value),
                 Phrases("a JSON object", do,
                         f"json: {key} {shown} -> {yes}, else {no}; ignore {other} and id",
                         (note,)), row, (yes, no))  # fmt: skip


def add_field(rng: random.Random) -> Variant:
    """A constant field added at the front or the end."""
    (key, *keys), value = rng.sample(KEYS, 3), rng.choice((*NONSENSE, "5", "0", "true", "null"))
    place = rng.choice(("first", "last"))

    def row(r: random.Random) -> tuple[str, str]:
        record: Record = {k: r.choice(WORDS) for k in keys}
        new: Record = {key: value}
        return json.dumps(record), json.dumps(new | record if place == "first" else record | new)

    do = f'add the field "{key}" with the string "{value}" as the {place} one'
    note = "Answer with the whole JSON object."
    return build("add_field", (key, *keys, value, place),
                 Phrases(_named(keys), do,
                         f'json ({", ".join(keys)}): add "{key}": "{value}" as {place} field',
                         (note,)), row)  # fmt: skip


def nested_field(rng: random.Random) -> Variant:
    """A value inside one of two nested objects."""
    outer, inner = rng.sample(KEYS, 2), rng.sample(NONSENSE, 2)
    path = f"{outer[0]}.{inner[0]}"
    left, right = rng.choice((("", ""), ("<", ">"), ("(", ")"), ("value: ", ""), ("", ";")))

    def row(r: random.Random) -> tuple[str, str]:
        record = {o: {i: r.choice(WORDS) for i in r.sample(inner, 2)} for o in r.sample(outer, 2)}
        return json.dumps(record), left + record[outer[0]][inner[0]] + right

    form = f' in the form "{left}VALUE{right}"' if left or right else ""
    do = f'give the value of "{inner[0]}" inside "{outer[0]}"{form}'
    given = (
        f"a JSON object with {' and '.join(sorted(outer))}, each with {' and '.join(sorted(inner))}"
    )
    return build(
        "nested_field",
        (path, outer[1], inner[1], left, right),
        Phrases(given, do, f"json with {outer[1]}.{inner[1]} and more: value of {path}{form}"),
        row,
    )


JSON_FAMILIES = (
    field_value, line_to_json, json_to_line, rename_field, extreme_key, array_entry, flag_label,
    add_field, nested_field,
)  # fmt: skip
