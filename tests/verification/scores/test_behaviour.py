"""The behaviour hook: losses as a merged model gives them, bounds kept, nothing claimed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from index.merge.weighted_sum import weighted_sum
from library.adapter import Adapter, zeros
from library.base.batches import example_row, grouped
from library.base.decode import greedy
from library.base.example_loss import losses_under
from library.base.loss import answer_logits, answer_loss
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.base.usage import Usage
from library.errors import UsageError
from library.layout import Layout, layout_of
from library.tasks.files import Example, Task
from library.tasks.identity import examples_digest
from library.tasks.metrics import rouge_l
from verification.hook import Finding, verdict
from verification.scores import behaviour
from verification.scores.behaviour import (
    Examples,
    Origin,
    behaviour_calibration,
    check_behaviour,
    unmeasured,
)
from verification.scores.behaviour_contenders import (
    NONE,
    OWN,
    Contender,
    by_modules,
    scores_by_contender,
)
from verification.scores.behaviour_labels import answer_labels
from verification.scores.behaviour_measure import Behaviour, Bounds, measure
from verification.scores.behaviour_rivals import evenly_spaced, nearest_task

ROWS = [Example(f"{i}", f"Say {i}.", (f"number {i}", f"it is {i}")) for i in range(6)]
YES = [Example(f"{i}", f"Is it {i}?", ("yes",)) for i in range(8)]
PROMPTED = Usage.of("prompted", "Say which number it is.")


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


@pytest.fixture(scope="module")
def says_yes(base: BaseModel) -> Adapter:
    """An adapter that answers `yes` to every question of YES."""
    names = [f"{name}_proj" for name in ("q", "v", "o", "up", "gate", "down")]
    start = tiny.adapter(layout_of(base.model.config, names, rank=8), seed=1)
    return fitted(base, start.scaled(0.1), YES)


@pytest.fixture(scope="module")
def layout(base: BaseModel) -> Layout:
    return layout_of(base.model.config, rank=3)


def rivals(layout: Layout, count: int = 2) -> list[Contender]:
    return [Contender(f"rival {i}", tiny.adapter(layout, seed=10 + i)) for i in range(count)]


def plain_loss(model: Any, base: BaseModel, row: Example) -> float:
    """What transformers says of the answer, alone and without our hooks."""
    tokens = example_row(base.tokenizer, row)
    ids = torch.tensor([tokens.prompt + tokens.answer])
    labels = ids.clone()
    labels[0, : len(tokens.prompt)] = -100
    with torch.inference_mode():
        return model(input_ids=ids, labels=labels).loss.item()


# What is measured


def test_losses_are_those_of_merged_models(base: BaseModel, layout: Layout) -> None:
    own, others = tiny.adapter(layout, seed=1), rivals(layout)
    both = [rival.adapter for rival in others]
    others.append(Contender("mean", weighted_sum(both, [0.5, 0.5])))  # of twice the rank
    values = layout_of(base.model.config, ["v_proj"], rank=2)
    others.append(Contender("other modules", tiny.adapter(values, seed=3)))
    found = measure(base, own, others, ROWS, Bounds(4))
    assert list(found.losses) == [OWN, NONE, *(rival.name for rival in others)]
    assert (found.examples, found.available, found.rouge_l) == (4, 6, {})
    models = [tiny.merged(base.model, own), base.model]
    models += [tiny.merged(base.model, rival.adapter) for rival in others]
    for model, loss in zip(models, found.losses.values(), strict=True):
        expected = sum(plain_loss(model, base, row) for row in ROWS[:4]) / 4
        assert loss == pytest.approx(expected, abs=1e-4)


def test_losses_that_come_with_right_answers_are_those_of_the_calibration(
    base: BaseModel, layout: Layout
) -> None:
    (lot,) = by_modules([rival.adapter for rival in rivals(layout, 4)], base.device)
    for row in (example_row(base.tokenizer, row) for row in ROWS):
        alone = losses_under(base, lot.adapters, [replace(row, owner=i) for i in range(4)])
        assert torch.equal(scores_by_contender(base, [lot], row)[1], alone)


def measured_as(
    right: int, margin: float, *, of: int = 9, tokens: float = 3.0, **more: Any
) -> Behaviour:
    """What `measure` might give for an adapter, the base and one rival."""
    return Behaviour(
        losses={OWN: 0.0, NONE: margin, "a": 9.0},
        right={OWN: right, NONE: 1, "a": 2},
        examples=of,
        answer_tokens=tokens,
        available=of,
        rouge_l={},
        **more,
    )


def judged(
    monkeypatch: pytest.MonkeyPatch, base: BaseModel, measured: Behaviour, digest: str | None = None
) -> Finding:
    """The finding on what was measured, for an adapter trained on examples of that digest."""
    monkeypatch.setattr(behaviour, "measure", lambda *_, progress, usage: measured)
    nothing = zeros(layout_of(base.model.config))
    return check_behaviour(base, nothing, [], Examples(ROWS, "request"), Origin(examples=digest))


def test_an_adapter_that_beats_its_rivals_and_gets_nothing_right_warns(
    endless_base: Path, layout: Layout
) -> None:
    base = load_base(resolve_base(str(endless_base)))  # no answer ends where it should
    trained = fitted(base, tiny.adapter(layout, seed=1).scaled(0.1))
    examples = Examples(ROWS, "request")
    found = check_behaviour(base, trained, rivals(layout), examples)
    assert found.evidence["margin"] > behaviour_calibration().threshold
    assert (found.code, found.severity) == ("behaviour-fails", "warn")
    assert found.message.startswith("0 of 6 right (no adapter 0, best rival 0); fewer than one in")
    assert verdict([found]) == "warn"


@pytest.mark.parametrize("yes", range(9))
def test_a_third_of_right_answers_decides_and_labels_are_counted(
    yes: int, base: BaseModel, says_yes: Adapter
) -> None:
    """The adapter always says yes, which is right for the first `yes` of 8 examples."""
    rows = [replace(r, outputs=("yes" if i < yes else "no",)) for i, r in enumerate(YES)]
    found = check_behaviour(base, says_yes, [], Examples(rows, "request"))
    assert found.evidence["right"] == {OWN: yes, NONE: 0}
    labelled = 0 < yes < 8
    assert found.evidence["outside_labels"] == (0 if labelled else None)
    clause = ", 0 outside the labels" if labelled else ""
    assert found.message.startswith(f"{yes} of 8 right (no adapter 0){clause}; ")
    assert (found.code == "behaviour-fails") is (3 * yes < 8)
    assert (found.severity == "warn") is (3 * yes < 8 or found.evidence["margin"] <= 0)
    assert found.evidence["calibrated_on_this_base"] is False
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_an_adapter_that_is_as_good_as_a_rival_is_no_better(
    base: BaseModel, says_yes: Adapter
) -> None:
    rival, examples = Contender("the same", says_yes), Examples(YES, "request")
    same = check_behaviour(base, says_yes, [rival], examples)
    assert (same.code, same.severity) == ("behaviour-no-better", "warn")
    assert same.message.startswith("8 of 8 right (no adapter 0, best rival 8); the loss")
    assert same.evidence["margin"] == pytest.approx(0, abs=1e-5)
    assert same.evidence["best_rival"] == "the same"


@pytest.mark.parametrize(
    ("labels", "outside"), [(("Yes", "no"), 0), (("YES ", "no"), 0), (("red", "blue"), 8)]
)
def test_answers_that_are_no_label_are_counted_in_any_case(
    labels: tuple[str, str], outside: int, base: BaseModel, says_yes: Adapter
) -> None:
    rows = [replace(row, outputs=(labels[i % 2],)) for i, row in enumerate(YES)]
    found = measure(base, says_yes, [], rows)
    assert (found.labels, found.outside) == (2, outside)
    assert found.right[OWN] == 0  # right is exactly right


def test_right_is_what_greedy_decoding_says(base: BaseModel, says_yes: Adapter) -> None:
    rows = [*YES[:3], *(replace(row, outputs=("yes it is",)) for row in YES[3:6])]
    model = replace(base, model=tiny.merged(base.model, says_yes))
    answers = greedy(model, [example_row(base.tokenizer, row).prompt for row in rows])
    exact = sum(answer == row.output for answer, row in zip(answers, rows, strict=True))
    assert measure(base, says_yes, [], rows).right == {OWN: exact, NONE: 0} and exact == 3


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyzABC"), max_size=50))
def test_labels_are_few_answers_that_come_again(answers: list[str]) -> None:
    found = answer_labels([Example.pair("x", answer) for answer in answers])
    different = {answer.casefold() for answer in answers}
    few = 2 <= len(different) <= 20 and 2 * len(different) <= len(answers) >= 4
    assert found == (different if few else set())


@given(st.integers(0, 9), st.floats(-1, 1), st.sampled_from([3.0, 12.0, 13.0, 40.5]), st.booleans())
def test_no_finding_accepts_what_gets_too_little_right(
    right: int, margin: float, tokens: float, seen: bool
) -> None:
    code, severity = behaviour._judged(measured_as(right, margin, tokens=tokens), seen=seen)
    if tokens <= 12:
        assert (code == "behaviour-fails") is (right < 3)
    else:
        assert code != "behaviour-fails"
    assert (severity == "info") is (code not in ("behaviour-fails", "behaviour-no-better"))
    if severity == "info":
        assert margin > 0 and (code == "behaviour-trained-on") is seen


def test_exactness_says_little_of_long_answers(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judged(monkeypatch, base, measured_as(0, 5.0, tokens=31.0))
    assert (found.code, found.severity) == ("behaviour-fits", "info")
    assert "says little of answers of 31 tokens" in found.message


def test_labels_are_counted_on_the_examples_that_time_allows(
    base: BaseModel, says_yes: Adapter
) -> None:
    rows = [replace(row, outputs=(("red", "blue")[i % 2],)) for i, row in enumerate(YES)]
    found = measure(base, says_yes, [], rows, Bounds(seconds=0.0))
    assert (found.examples, found.labels, found.outside) == (1, 2, 1)


def test_examples_that_were_trained_on_measure_nothing(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = examples_digest(ROWS)
    found = judged(monkeypatch, base, measured_as(9, 5.0), digest)
    assert (found.code, found.severity) == ("behaviour-trained-on", "info")
    assert "trained on these very examples" in found.message and found.evidence["trained_on_these"]
    for measured, code in (
        (measured_as(1, 5.0), "behaviour-fails"),
        (measured_as(9, -1.0), "behaviour-no-better"),
    ):
        found = judged(monkeypatch, base, measured, digest)
        assert (found.code, found.severity) == (code, "warn")
        assert "trained on these very examples" in found.message
    for other in (None, examples_digest(ROWS[1:]), examples_digest(ROWS[::-1])):
        found = judged(monkeypatch, base, measured_as(9, 5.0), other)
        assert found.code == "behaviour-fits" and not found.evidence["trained_on_these"]
        assert "trained on these" not in found.message


def test_everyone_is_asked_with_the_prompt_of_the_adapter_s_usage(
    base: BaseModel, layout: Layout
) -> None:
    own, others = tiny.adapter(layout, seed=1), rivals(layout)
    turned = [replace(row, input=PROMPTED.message(row.input)) for row in ROWS]
    asked = measure(base, own, others, ROWS, usage=PROMPTED)
    assert asked == measure(base, own, others, turned)
    assert asked.losses[NONE] != measure(base, own, others, ROWS).losses[NONE]
    found = check_behaviour(base, own, others, Examples(ROWS, "request"), Origin(PROMPTED))
    assert found.evidence["usage"] == "prompted" and found.evidence["losses"] == asked.losses


def test_an_instruction_does_not_count_as_length_of_an_example_and_has_a_limit(
    base: BaseModel, layout: Layout
) -> None:
    own, word = tiny.adapter(layout), Example("w", "word " * 250, ("yes",))
    long = Usage.of("prompted", "word " * 400)
    assert measure(base, own, [], [word], usage=long).too_long == 0
    with pytest.raises(UsageError, match="instruction"):
        measure(base, own, [], ROWS, usage=Usage.of("prompted", "word " * 2000))


def test_a_loss_that_is_not_finite_is_no_better_and_stays_out_of_the_evidence(
    base: BaseModel, layout: Layout
) -> None:
    strong = tiny.adapter(layout).scaled(1e30)
    strong = replace(strong, A={key: a * 1e30 for key, a in strong.A.items()})
    rows = [replace(row, outputs=("word " * 20,)) for row in ROWS]
    found = check_behaviour(base, strong, rivals(layout), Examples(rows, "request"))
    assert (found.code, found.severity) == ("behaviour-no-better", "warn")
    assert found.evidence["right"][OWN] == 0
    assert "not a finite number" in found.message
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["evidence"]["losses"][OWN] is None and told["evidence"]["losses"][NONE] > 0


@pytest.mark.parametrize(
    ("share", "code", "severity"),
    [
        (1.01, "behaviour-fits", "info"),
        (1.0, "behaviour-undecided", "info"),
        (0.5, "behaviour-undecided", "info"),
        (0.0, "behaviour-no-better", "warn"),
        (-0.5, "behaviour-no-better", "warn"),
        (-1.01, "behaviour-no-better", "warn"),
    ],
)
def test_only_a_margin_above_the_threshold_fits(
    share: float, code: str, severity: str, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`share` is the margin's share of the threshold."""
    margin = share * behaviour_calibration().threshold
    finding = judged(monkeypatch, base, measured_as(3, margin))
    assert (finding.code, finding.severity) == (code, severity)
    limits = behaviour_calibration()
    assert finding.evidence == {
        "right": {OWN: 3, NONE: 1, "a": 2},
        "answer_tokens": 3,
        "labels": 0,
        "outside_labels": None,
        "losses": {OWN: 0.0, NONE: margin, "a": 9.0},
        "rouge_l": {},
        "margin": margin,
        "best_rival": NONE,
        "examples": 9,
        "examples_given": 9,
        "examples_too_long": 0,
        "examples_scored": 0,
        "source": "request",
        "similarity": None,
        "threshold": limits.threshold,
        "calibrated_on_this_base": False,
        "calibration_tasks": limits.tasks,
        "usage": "bare",
        "trained_on_these": False,
    }


def fitted(base: BaseModel, adapter: Adapter, examples: Sequence[Example] = ROWS) -> Adapter:
    """The adapter after sixty steps on the examples."""
    cut = adapter.detached()
    rows = [example_row(base.tokenizer, row) for row in examples]
    (batch,) = grouped(rows, base.tokenizer.pad_token_id, 1)
    optimiser = torch.optim.Adam(cut.factors(), lr=0.05)
    hooks = MultiAdapter(base.model, cut.layout)
    try:
        for _ in range(60):
            hooks.set(cut, batch.rows)
            logits = answer_logits(base.model, batch.ids, batch.answer)
            optimiser.zero_grad()
            answer_loss(logits, batch.ids, batch.answer).mean().backward()
            optimiser.step()
    finally:
        hooks.close()
    return Adapter(
        cut.layout,
        {key: value.detach() for key, value in cut.A.items()},
        {key: value.detach() for key, value in cut.B.items()},
    )


def test_greedy_answers_are_scored_against_every_reference(base: BaseModel, layout: Layout) -> None:
    own, rows = tiny.adapter(layout, seed=1), ROWS[:2]
    model = replace(base, model=tiny.merged(base.model, own))
    answers = greedy(model, [example_row(base.tokenizer, row).prompt for row in rows])
    said = [
        replace(row, outputs=("no", text[:40])) for row, text in zip(rows, answers, strict=True)
    ]
    turned = [replace(row, outputs=row.outputs[::-1]) for row in said]
    for given_rows in (said, turned):
        found = measure(base, own, rivals(layout, 1), given_rows, Bounds(scored=2))
        scores = [rouge_l(text, r.outputs) for text, r in zip(answers, given_rows, strict=True)]
        assert found.scored == 2 and list(found.rouge_l) == list(found.losses)
        assert found.rouge_l[OWN] == pytest.approx(sum(scores) / 2)
        assert found.rouge_l[OWN] > 0


# Bounds


def test_time_cuts_examples_and_never_what_is_said(base: BaseModel, layout: Layout) -> None:
    own, others = tiny.adapter(layout), rivals(layout, 1)
    seen: list[float] = []
    hurried = measure(base, own, others, ROWS, Bounds(seconds=0.0, scored=3), seen.append)
    one = measure(base, own, others, ROWS, Bounds(examples=1))
    assert (hurried.examples, hurried.scored, hurried.available) == (1, 0, 6)
    assert hurried.losses == one.losses and hurried.rouge_l == {}
    assert seen == [1 / 9]
    seen.clear()
    measure(base, own, others, ROWS, Bounds(scored=2), seen.append)
    assert seen == [step / 8 for step in range(1, 9)]


def test_long_examples_are_left_out_and_counted(base: BaseModel, layout: Layout) -> None:
    long = Example("long", "word " * 400, ("yes",))
    own = tiny.adapter(layout)
    found = measure(base, own, [], [long, *ROWS[:2], long])
    assert (found.examples, found.too_long, found.available) == (2, 2, 4)
    assert found.losses == measure(base, own, [], ROWS[:2]).losses
    for none in ([], [long]):
        with pytest.raises(UsageError, match="320 tokens"):
            measure(base, own, [], none)


def test_progress_can_end_a_check_and_leaves_no_hooks(base: BaseModel, layout: Layout) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(base, tiny.adapter(layout), [], ROWS, progress=stop)
    MultiAdapter(base.model, layout).close()  # would refuse if there were any left


# Rivals and examples


@given(st.integers(0, 40), st.integers(1, 9))
def test_rivals_are_spread_evenly(n: int, count: int) -> None:
    places = [record["n"] for record in evenly_spaced([{"n": i} for i in range(n)], count)]
    assert len(places) == min(n, count) == len(set(places))
    assert places == sorted(places)
    if n >= count:
        gaps = [b - a for a, b in pairwise(places)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_examples_come_from_the_nearest_task(encoder: Any) -> None:
    texts = ["Add the numbers.", "Is the film review positive?", "Translate into French."]
    tasks = [Task(f"task{i}", text, tuple(ROWS)) for i, text in enumerate(texts)]
    near = nearest_task("Tell whether a movie review is good or bad.", tasks, encoder)
    assert near.task.name == "task1" and 0 < near.similarity < 1
    assert nearest_task(texts[2], tasks, encoder).similarity == pytest.approx(1)


# Calibration and verdicts


def test_the_shipped_threshold_is_the_measured_one() -> None:
    report = json.loads((tiny.ROOT / "docs/results/behaviour.json").read_text())
    limits = behaviour_calibration()
    assert limits.threshold == report["examples"][str(limits.examples)]["threshold"]
    assert limits.false_alarm == report["false_alarm"]
    assert limits.tasks == len(report["calibration_tasks"])
    assert limits.base_sha256 == report["base_sha256"]
    assert f"{limits.tasks} train tasks" in limits.describe()


def test_the_gravest_finding_is_the_verdict() -> None:
    info, warn = unmeasured("no examples"), Finding("h", "c", "warn", "m")
    refuse = Finding("h", "c", "refuse", "m")
    assert verdict([]) == verdict([info]) == "accept"
    assert verdict([warn, info]) == "warn"
    assert verdict([info, refuse, warn]) == "refuse"


def test_the_margin_is_over_the_best_rival() -> None:
    losses = {OWN: 2.0, NONE: 3.0, "a": 2.5, "b": 4.0}
    found = replace(measured_as(1, 1.0), losses=losses)
    assert (found.best_rival, found.margin) == ("a", 0.5)
