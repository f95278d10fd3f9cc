"""Kinds of texts as they come in at an office: how they are put, and which facts they hold.

Data only; training.synthetic.families.texts.documents draws the facts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of text.

    Attributes:
        given: what it is, a noun phrase.
        patterns: texts with the kind's facts in braces, the same in all of them.
        called: how each fact is named in a description.
    """

    given: str
    patterns: tuple[str, ...]
    called: Mapping[str, str]

    def legend(self, slots: Iterable[str]) -> str:
        """What the names of facts stand for where they are written in capitals."""
        return ", ".join(f"{slot.upper()} is the {self.called[slot]}" for slot in slots)


def _patterns(text: str) -> tuple[str, ...]:
    """Paragraphs, each as one line."""
    return tuple(" ".join(part.split()) for part in text.strip().split("\n\n"))


KINDS: dict[str, Kind] = {
    "order": Kind(
        "a customer's message about an order",
        _patterns(
            """
            Hi, on {date} I ordered {count} x {product} for {price}, order number
            {number}. They should go to {name} in {city}.

            hello, order {number} from {date}: {count} x {product}, {price} in all, to
            {name}, {city} pls

            Please confirm my order {number}. I bought {product} (x{count}) on {date},
            total {price}. Best regards, {name}, {city}

            {name} from {city} here. On {date} I paid {price} for {count} x {product}.
            The order is {number}. Where is it?

            Order {number} / {date} / {count} x {product} / {price} / ship to {name},
            {city}
            """
        ),
        {
            "date": "order date",
            "count": "quantity",
            "product": "ordered product",
            "price": "total price",
            "number": "order number",
            "name": "customer's name",
            "city": "delivery city",
        },
    ),
    "contact": Kind(
        "a message with contact details",
        _patterns(
            """
            My name is {name} and I work in {department} in {city}. Call me on {phone}
            or write to {email}.

            Kind regards, {name}, {department}, {city}. Phone {phone}, mail {email}

            pls update my contact: {name}, {email}, tel {phone}, now in {city}
            ({department})

            You can reach {name} ({department}, {city}) at {email}; by phone it is
            {phone}.

            New in {department}: {name}. Office {city}, phone {phone}, {email}.
            """
        ),
        {
            "name": "person's name",
            "department": "person's department",
            "city": "office city",
            "phone": "person's phone number",
            "email": "e-mail address",
        },
    ),
    "booking": Kind(
        "a request for a table",
        _patterns(
            """
            Good evening, I'd like a table for {people} people on {date} at {time}. The
            name is {name}, my number is {phone}.

            table for {people}, {date}, {time}, {name}, {phone} thx

            Reservation: {name}, {date}, {time}, {people} persons, call back {phone}

            This is {name}. Could we come on {date} at {time}? We are {people}. If not,
            ring {phone}.
            """
        ),
        {
            "people": "number of guests",
            "date": "reservation date",
            "time": "reservation time",
            "name": "guest's name",
            "phone": "guest's phone number",
        },
    ),
    "log": Kind(
        "a line of a log",
        _patterns(
            """
            {time} {level} {service}: request {number} took {ms} ms

            [{level}] {time} {service} - job {number} finished after {ms} ms

            {service} {level} id={number} duration={ms}ms at {time}

            {time} | {service} | {level} | {number} | {ms} ms
            """
        ),
        {
            "time": "time of the entry",
            "level": "log level",
            "service": "service",
            "number": "request id",
            "ms": "duration in ms",
        },
    ),
    "review": Kind(
        "a review of a product",
        _patterns(
            """
            Bought the {product} for {price} last {weekday}. Does what it should,
            {stars} of 5 stars. {name}

            {stars}/5 from me. The {product} cost {price}, came on {weekday}, and the
            box was open. – {name}

            {name}: {stars} stars. My {product} arrived on a {weekday}, for {price} it
            is all right

            The {product} was a gift. {price}, delivered on {weekday}. I give it {stars}
            of 5. {name}
            """
        ),
        {
            "product": "reviewed product",
            "price": "price of the product",
            "weekday": "day of the week",
            "stars": "number of stars",
            "name": "reviewer's name",
        },
    ),
    "invoice": Kind(
        "a note about an invoice",
        _patterns(
            """
            Invoice {number} of {date} to {name}: {price}, payable within {days} days.

            {name} still owes us {price} (invoice {number}, {date}), the term was {days}
            days

            Please pay {price} within {days} days. Invoice {number}, {date}, issued to
            {name}.

            Reminder for {name}: invoice {number} from {date} over {price},
            term {days} days.
            """
        ),
        {
            "number": "invoice number",
            "date": "invoice date",
            "name": "debtor's name",
            "price": "invoice amount",
            "days": "payment term in days",
        },
    ),
    "parcel": Kind(
        "a note about a parcel",
        _patterns(
            """
            Parcel {number} for {name}, {city}: {kilos} kg, arrives on {date}.

            {kilos} kg to {city}, {name}, tracking {number}, due {date}

            On {date} we deliver {number} to {name} in {city}. It weighs {kilos} kg.

            hi, where is {number}? {kilos} kg, {date} was promised. {name}, {city}
            """
        ),
        {
            "number": "tracking number",
            "name": "recipient's name",
            "city": "destination",
            "kilos": "weight in kg",
            "date": "delivery date",
        },
    ),
    "ticket": Kind(
        "a support ticket",
        _patterns(
            """
            For {days} days the {product} has not worked for {people} people in {city}.
            {name}, {department}

            {name} ({department}): {product} broken, {people} users hit, since {days}
            days, {city}

            Site {city}, {department}. {people} of us cannot use the {product}, day
            {days} by now. {name}

            hello, {product} is down again!! {people} people waiting, {days} days
            already. {name}, {department}, {city}
            """
        ),
        {
            "days": "number of days",
            "product": "broken product",
            "people": "number of people affected",
            "city": "site",
            "name": "sender's name",
            "department": "sender's department",
        },
    ),
    "meeting": Kind(
        "a note about a meeting",
        _patterns(
            """
            Meeting with {name} about {department}, {date} at {time}, {city} office.

            {date}, {time}: {name} visits us in {city} ({department})

            pls book a room in {city} for {date} {time}, guest is {name}, topic
            {department}

            We see {name} on {date}. It starts at {time} in {city} and is about
            {department}.
            """
        ),
        {
            "name": "visitor's name",
            "department": "meeting topic",
            "date": "meeting date",
            "time": "meeting time",
            "city": "meeting place",
        },
    ),
}
