"""The behaviour hook: losses as a merged model gives them, bounds kept, nothing claimed."""

import json
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
from library.base.loss import answer_logits, answer_loss
from library.base.models import BaseModel, load_base, resolve_base
from library.base.multi_adapter import MultiAdapter
from library.errors import UsageError
from library.layout import Layout, layout_of
from library.tasks.files import Example, Task
from library.tasks.metrics import rouge_l
from verification.hook import Finding, verdict
from verification.scores import behaviour
from verification.scores.behaviour import (
    NONE,
    OWN,
    Behaviour,
    Bounds,
    Contender,
    Examples,
    behaviour_calibration,
    check_behaviour,
    measure,
    unmeasured,
)
from verification.scores.behaviour_rivals import evenly_spaced, nearest_task

ROWS = [Example(f"{i}", f"Say {i}.", (f"number {i}", f"it is {i}")) for i in range(6)]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(resolve_base(str(tiny_base)))


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


def test_an_adapter_trained_on_the_examples_fits_and_another_does_not(
    base: BaseModel, layout: Layout
) -> None:
    trained = fitted(base, tiny.adapter(layout, seed=1).scaled(0.1))
    examples = Examples(ROWS, "request")
    right = check_behaviour(base, trained, rivals(layout), examples)
    assert (right.code, right.severity) == ("behaviour-fits", "info")
    rival = Contender("the right one", trained)
    wrong = check_behaviour(base, rivals(layout)[0].adapter, [rival], examples)
    assert (wrong.code, wrong.severity) == ("behaviour-no-better", "warn")
    assert wrong.evidence["best_rival"] == "the right one"
    assert verdict([right]) == "accept" and verdict([right, wrong]) == "warn"
    for finding in (right, wrong):
        assert finding.evidence["calibrated_on_this_base"] is False
        assert json.loads(json.dumps(finding.to_dict())) == finding.to_dict()
    same = check_behaviour(base, trained, [rival], examples)
    assert same.code == "behaviour-no-better"  # as good is not better
    assert same.evidence["margin"] == pytest.approx(0, abs=1e-5)


def test_a_loss_that_is_not_finite_is_no_better_and_stays_out_of_the_evidence(
    base: BaseModel, layout: Layout
) -> None:
    strong = tiny.adapter(layout).scaled(1e30)
    strong = replace(strong, A={key: a * 1e30 for key, a in strong.A.items()})
    found = check_behaviour(base, strong, rivals(layout), Examples(ROWS, "request"))
    assert (found.code, found.severity) == ("behaviour-no-better", "warn")
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
    measured = Behaviour({OWN: 0.0, NONE: margin, "a": 9.0}, {}, 1, 0, 0, 1)
    monkeypatch.setattr(behaviour, "measure", lambda *_, progress: measured)
    finding = check_behaviour(base, zeros(layout_of(base.model.config)), [], Examples([], "r"))
    assert (finding.code, finding.severity) == (code, severity)
    limits = behaviour_calibration()
    assert finding.evidence == {
        "losses": {OWN: 0.0, NONE: margin, "a": 9.0},
        "rouge_l": {},
        "margin": margin,
        "best_rival": NONE,
        "examples": 1,
        "examples_given": 1,
        "examples_too_long": 0,
        "examples_scored": 0,
        "source": "r",
        "similarity": None,
        "threshold": limits.threshold,
        "calibrated_on_this_base": False,
        "calibration_tasks": limits.tasks,
    }


def fitted(base: BaseModel, adapter: Adapter) -> Adapter:
    """The adapter after sixty steps on the examples."""
    cut = adapter.detached()
    rows = [example_row(base.tokenizer, row) for row in ROWS]
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
    found = Behaviour({OWN: 2.0, NONE: 3.0, "a": 2.5, "b": 4.0}, {}, 1, 0, 0, 1)
    assert (found.best_rival, found.margin) == ("a", 0.5)
