"""Families that put a sentence another way: as a question, in the passive, joined to another."""

import random
from collections.abc import Callable

from training.synthetic.families.dates import WEEKDAYS
from training.synthetic.families.phrasing import Phrases, build, capitalised
from training.synthetic.families.texts.rewriting import VERBS, stem
from training.synthetic.families.words import office_words
from training.synthetic.variant import Variant

SUBJECTS = (
    "the {b} {a}", "{name}", "our {department} team", "the office in {city}", "the new {a}",
    "my order of {n} {a}s", "the {a} from {city}", "the invoice of {name}", "your {b} {a}",
)  # fmt: skip
PREDICATES = (
    ("is", "late again"), ("is", "ready for {weekday}"), ("is", "on the list"),
    ("is", "still here"), ("was", "checked twice"), ("was", "sent to {city}"), ("was", "the first"),
    ("will", "arrive on {weekday}"), ("will", "be replaced"), ("can", "wait until {weekday}"),
    ("can", "be opened"), ("has", "been moved to {city}"), ("has", "left {city}"),
    ("should", "stay in {city}"), ("must", "be paid by {weekday}"), ("had", "already gone"),
)  # fmt: skip
Form = Callable[[str, str, str], str]  # of subject, auxiliary and the rest
FORMS: dict[str, Form] = {
    "a question": lambda s, aux, rest: f"{aux} {s} {rest}?",
    "a question that can be answered with yes or no": lambda s, aux, rest: f"{aux} {s} {rest}?",
    'a negative statement with "not"':
        lambda s, aux, rest: f"{s} {aux}{'' if aux == 'can' else ' '}not {rest}.",
    'a question that ends with "right?"': lambda s, aux, rest: f"{s} {aux} {rest}, right?",
    'a question that begins with "Do you know whether"':
        lambda s, aux, rest: f"do you know whether {s} {aux} {rest}?",
    'a sentence that begins with "I doubt that"':
        lambda s, aux, rest: f"I doubt that {s} {aux} {rest}.",
    'a sentence that begins with "We hope that"':
        lambda s, aux, rest: f"we hope that {s} {aux} {rest}.",
    'a sentence that begins with "They say that"':
        lambda s, aux, rest: f"they say that {s} {aux} {rest}.",
}  # fmt: skip
FRONTS = ("", "", "Q: ", "> ", "@all ", "[open] ", "Subject: ", "* ", "1. ", "Note: ")
PERSONS = (
    ("he", "his", "in the third person, about a man"),
    ("she", "her", "in the third person, about a woman"),
    ("they", "their", "in the third person plural"),
    ("we", "our", "in the first person plural"),
    ("you", "your", "in the second person"),
)
OWN = (
    "sent {my} {a} to {name}", "lost {my} {b} {a} in {city}", "will bring {my} {a} on {weekday}",
    "called {name} about {my} {a}", "can pay for {my} {a} in {city}", "must return {my} {b} {a}",
    "left {my} {a} with {department}", "never got {my} {a} back",
)  # fmt: skip
JOINTS = ("but", "and", "so", "because", "while", "although", "whereas", "though", "since")
IN_FRONT = JOINTS[3:]
AUXILIARIES = ("was", "will be", "has been", "must be", "should be", "could be")
ENDS = ("", "", "in time", "by mistake", "as agreed", "once more", "without delay", "at last")


def _words(r: random.Random) -> dict[str, object]:
    return {
        **office_words(r), "weekday": r.choice(tuple(WEEKDAYS)), "n": r.randint(2, 20),
    }  # fmt: skip


def _clause(r: random.Random) -> tuple[str, str, str]:
    """Subject, auxiliary and the rest of a sentence, without capital and full stop."""
    words, (aux, rest) = _words(r), r.choice(PREDICATES)
    return r.choice(SUBJECTS).format(**words), aux, rest.format(**words)


def _in_front(front: str) -> str:
    return f', with "{front}" in front' if front else ""


def reframe_sentence(rng: random.Random) -> Variant:
    """A statement as a question, negated, or after an opening; or a question as a statement."""
    form, front = rng.choice(tuple(FORMS)), rng.choice(FRONTS)
    back = rng.random() < 0.15

    def row(r: random.Random) -> tuple[str, str]:
        subject, aux, rest = _clause(r)
        statement = capitalised(f"{subject} {aux} {rest}.")
        if back:
            return capitalised(f"{aux} {subject} {rest}?"), front + statement
        return statement, front + capitalised(FORMS[form](subject, aux, rest))

    given, made = ("a question", "a statement") if back else ("a statement", form)
    do = f"turn the {given[2:]} into {made}{_in_front(front)}"
    note = "All other words stay the same."
    return build("reframe_sentence", (back, "" if back else form, front),
                 Phrases(given, do, f"{given} -> {made}{_in_front(front)}", (note,)),
                 row)  # fmt: skip


ASKED = {
    "person": ("Who {past} the {a} in {city} on {weekday}?", "name"),
    "thing": ("What did {name} {stem} in {city} on {weekday}?", "a"),
    "place": ("Where did {name} {stem} the {a} on {weekday}?", "city"),
    "day": ("When did {name} {stem} the {a} in {city}?", "weekday"),
}


def _deed(r: random.Random) -> dict[str, object]:
    """Who did what, where and when."""
    verb = r.choice(tuple(VERBS))
    return _words(r) | {"past": VERBS[verb], "stem": stem(verb)}


def ask_about(rng: random.Random) -> Variant:
    """The question that one part of a sentence answers."""
    part, front = rng.choice(tuple(ASKED)), rng.choice(FRONTS)

    def row(r: random.Random) -> tuple[str, str]:
        deed = _deed(r)
        text = "{name} {past} the {a} in {city} on {weekday}.".format(**deed)
        return text, front + ASKED[part][0].format(**deed)

    word = ASKED[part][0].split()[0]
    what = f'question that begins with "{word}" and asks for the {part}'
    do, note = f"write the {what}{_in_front(front)}", "Keep all other details."
    return build("ask_about", (part, front),
                 Phrases("a sentence", do, f"{what}{_in_front(front)}. {note}", (note,)),
                 row)  # fmt: skip


def answer_about(rng: random.Random) -> Variant:
    """The answer to a question about the sentence before it."""
    full, upper = rng.random() < 0.3, rng.random() < 0.3
    mark = rng.choice(("\n", "\n> ", "\n- ", "\n? ", " // ", " ## "))
    left = rng.choice(("", "", "= ", "[", "Answer: "))

    def row(r: random.Random) -> tuple[str, str]:
        deed, (question, slot) = _deed(r), r.choice(tuple(ASKED.values()))
        text = "{name} {past} the {a} in {city} on {weekday}.".format(**deed)
        answer = text if full else str(deed[slot])
        answer = left + (answer.upper() if upper else answer) + ("]" if left == "[" else "")
        return f"{text}{mark}{question.format(**deed)}", answer

    what = "with the whole sentence" if full else "with as few words of the sentence as possible"
    case = ", in capital letters" if upper else ""
    shown = f", in the form `{left}...{']' if left == '[' else ''}`" if left else ""
    sign = mark.strip()
    where = f'after "{sign}"' if sign else ""
    where = ", ".join(filter(None, ("on the next line" * ("\n" in mark), where)))
    do = f"answer the question {what}{case}{shown}"
    given = f"a sentence and, {where}, a question about it"
    return build("answer_about", (full, upper, mark, left),
                 Phrases(given, do, f"{given}: {do}"), row)  # fmt: skip


def other_person(rng: random.Random) -> Variant:
    """What somebody says of himself, told of another person."""
    subject, own, grammar = rng.choice(PERSONS)
    named = rng.choice(("", "", "", "the customer", "the caller", "my colleague", "the guest"))
    if named:
        subject, own = named, "their"
    told, end = rng.random() < 0.5 or bool(named), rng.choice((".", ".", "!", " (noted).", " ..."))

    def row(r: random.Random) -> tuple[str, str]:
        words, deed = _words(r), r.choice(OWN)
        return (f"I {deed.format(my='my', **words)}.",
                capitalised(f"{subject} {deed.format(my=own, **words)}{end}"))  # fmt: skip

    how = f'with "{subject}" and "{own}" in the place of "I" and "my"' if told else grammar
    ending = "" if end == "." else f', ending with "{end}" in the place of the full stop'
    do = f"rewrite the sentence {how}{ending}"
    return build("other_person", (subject, told, end),
                 Phrases("what somebody says", do, f"{how}{ending}"), row)  # fmt: skip


def join_sentences(rng: random.Random) -> Variant:
    """Two sentences as one, with a drawn word between them or in front."""
    first, comma = rng.random() < 0.4, rng.random() < 0.5
    joint = rng.choice(IN_FRONT if first else JOINTS)
    swapped = rng.random() < 0.3

    def row(r: random.Random) -> tuple[str, str]:
        one, two = (" ".join(_clause(r)) for _ in range(2))
        text = f"{capitalised(one)}. {capitalised(two)}."
        a, b = (two, one) if swapped else (one, two)
        if first:
            return text, f"{capitalised(joint)} {a}, {b}."
        return text, f"{capitalised(a)}{',' * comma} {joint} {b}."

    order = ", the second sentence first" if swapped else ""
    shape = f'"{capitalised(joint)} ..., ..."' if first else f'"...{"," * comma} {joint} ..."'
    do = f"join the sentences into one in the form {shape}{order}"
    note = "Keep all other words, and end with a full stop."
    terse = f"a pair of sentences -> {shape}{order}. {note}"
    return build("join_sentences", (shape, swapped),
                 Phrases("a pair of sentences", do, terse, (note,)), row)  # fmt: skip


def passive_voice(rng: random.Random) -> Variant:
    """A sentence in the passive, with a drawn auxiliary, with or without who did it."""
    aux, end = rng.choice(AUXILIARIES), rng.choice(ENDS)
    by, back = rng.random() < 0.6, rng.random() < 0.15

    def row(r: random.Random) -> tuple[str, str]:
        deed = _deed(r)
        active = "{name} {past} the {b} {a}".format(**deed)
        passive = f"the {deed['b']} {deed['a']} {'was' if back else aux} {deed['past']}"
        passive += f" by {deed['name']}" if by or back else ""
        after = f" {end}" if end else ""
        if back:
            return capitalised(f"{passive}."), f"{active}{after}."
        return f"{active}.", capitalised(f"{passive}{after}.")

    more = f', and add "{end}" at the end' if end else ""
    who = "" if by else ", and leave out who did it"
    do = f'put the sentence into the passive with "{aux}"{who}{more}'
    if back:
        do = f"put the sentence into the active{more}"
    given = "a sentence in the passive" if back else "a sentence about what somebody did"
    parameters = ("active", end) if back else (aux, by, end)
    return build("passive_voice", parameters,
                 Phrases(given, do, do.removeprefix("put the sentence ")), row)  # fmt: skip


SENTENCE_FAMILIES = (
    reframe_sentence, ask_about, answer_about, other_person, join_sentences, passive_voice,
)  # fmt: skip
