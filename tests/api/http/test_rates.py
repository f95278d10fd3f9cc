"""Rates and quotas of keys: each has its own, nothing is stored beyond them, and answers tell."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rest import TASK, UNKNOWN_ID, assert_problem, client_of, engine, post, use  # noqa: F401  (fixtures)

from api.errors import RateLimited
from api.service.callers import Caller
from api.service.keys import KeyStore
from api.service.rates import Rates
from api.service.settings import Settings, load_settings
from generator.engine import Engine
from library.errors import UsageError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time forward."""
    ahead, real = [0.0], time.time

    def forward(seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    return forward


def test_a_window_moves_and_is_each_caller_s_own(clock: Callable[[float], None]) -> None:
    rates = Rates("2/minute")
    ann, ben = Caller("ann", ("read",)), Caller("ben", ("read",), rate="1/hour")
    assert rates.take(ann)["RateLimit"] == '"requests";r=1;t=60'
    clock(20)
    left = rates.take(ann)
    assert left["RateLimit-Policy"] == '"requests";q=2;w=60'
    assert left["RateLimit"] == '"requests";r=0;t=40'
    for _ in range(3):  # who is refused is not counted
        with pytest.raises(RateLimited, match="2/minute") as refused:
            rates.take(ann)
    assert refused.value.headers["Retry-After"] == "40"
    assert refused.value.headers["RateLimit"] == '"requests";r=0;t=40'
    assert rates.take(ben)["RateLimit"] == '"requests";r=0;t=3600'
    clock(41)  # the first of the two has left the window, the second has not
    assert rates.take(ann)["RateLimit"] == '"requests";r=0;t=19'
    with pytest.raises(RateLimited):
        rates.take(ann)
    with pytest.raises(RateLimited):
        rates.take(ben)


def test_without_a_rate_nothing_is_counted() -> None:
    rates = Rates(None)
    assert [rates.take(Caller("ann", ("read",))) for _ in range(100)] == [{}] * 100


def test_who_asks_too_often_is_429(engine: Engine, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    with client_of(Settings(data=tmp_path, rate="3/hour"), engine) as client:
        use(client, keys.create("ann", ["read"])[1])
        first = client.get("/v1/base-models")
        assert first.headers["ratelimit-policy"] == '"requests";q=3;w=3600'
        assert first.headers["ratelimit"] == '"requests";r=2;t=3600'
        missing = client.get(f"/v1/adapters/{UNKNOWN_ID}")
        assert_problem(missing, 404)
        assert missing.headers["ratelimit"].startswith('"requests";r=1;')
        forbidden = post(client, {"description": TASK})
        assert_problem(forbidden, 403)
        assert forbidden.headers["ratelimit"].startswith('"requests";r=0;')
        refused = post(client, b"x" * 2**21)  # before scope and body
        assert_problem(refused, 429, "rate-limited")
        wait = int(refused.headers["retry-after"])
        assert 3500 < wait <= 3600
        assert refused.headers["ratelimit"] == f'"requests";r=0;t={wait}'
        assert client.get("/health/ready").status_code == 200
        use(client, keys.create("ben", rate="1/day")[1])
        assert client.get("/v1/base-models").headers["ratelimit-policy"].endswith("q=1;w=86400")
        assert_problem(client.get("/v1/base-models"), 429)
        use(client, "nonsense")
        assert "ratelimit" not in client.get("/v1/base-models").headers


def test_the_default_rate_also_holds_without_keys(engine: Engine, tmp_path: Path) -> None:
    with client_of(Settings(data=tmp_path, rate="1/hour"), engine) as client:
        assert client.get("/v1/base-models").status_code == 200
        assert_problem(client.get("/v1/base-models"), 429)
    with client_of(Settings(data=tmp_path), engine) as client:
        for _ in range(5):
            assert "ratelimit" not in client.get("/v1/base-models").headers


def test_a_rate_that_is_none_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_RATE", "5/second")
    assert load_settings().rate == "5/second"
    monkeypatch.setenv("LORASMITH_RATE", "often")
    with pytest.raises(UsageError, match=re.escape("setting rate: a rate is a number")):
        load_settings()


def test_over_the_quota_of_a_key_is_507_and_others_go_on(engine: Engine, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    texts = [TASK, "Other.", "A third."]
    with client_of(Settings(data=tmp_path), engine) as client:
        use(client, keys.create("ann")[1])
        sizes = [
            sum(file["bytes"] for file in post(client, {"description": t}).json()["files"].values())
            for t in texts
        ]
        use(client, keys.create("ben", quota_bytes=sum(sizes[:2]))[1])
        assert post(client, {"description": texts[0]}).status_code == 201
        second = post(client, {"description": texts[1]})
        assert second.status_code == 201  # it just fits
        body = assert_problem(post(client, {"description": texts[2]}), 507, "quota-exceeded")
        assert f"{sum(sizes):,} bytes of {sum(sizes[:2]):,}" in body["detail"]
        assert len(client.get("/v1/adapters").json()["adapters"]) == 2
        assert post(client, {"description": texts[1]}).status_code == 200  # it is there
        client.delete(second.headers["location"])
        assert post(client, {"description": texts[1]}).status_code == 201


def test_a_clock_that_is_put_back_refuses_nobody_until_then(clock: Callable[[float], None]) -> None:
    rates, ann = Rates("1/minute"), Caller("ann", ("read",))
    clock(365 * 86400)
    rates.take(ann)
    clock(-366 * 86400)
    rates.take(ann)
    with pytest.raises(RateLimited) as refused:  # and it counts on
        rates.take(ann)
    assert int(refused.value.headers["Retry-After"]) <= 60
