"""What one client of `rest_load` does, as locust runs it: SCENARIO says which kind of request."""

import os
import random
import uuid
from typing import Any

import httpx
from locust import (  # pyright: ignore[reportMissingImports]
    FastHttpUser,
    constant,
    events,
    task,
)

SCENARIO = os.environ["SCENARIO"]
KNOWN = {"description": "Say whether the review is positive or negative."}
FILE = "adapter_model.safetensors"
NEW_SHARE = 0.05  # of the mixed requests
paths: list[str] = []  # of the file that is downloaded


@events.test_start.add_listener
def make_one(environment: Any, **_: Any) -> None:
    """Make the adapter that is asked for again, searched for or downloaded."""
    answer = httpx.post(f"{environment.host}/v1/adapters", json=KNOWN, timeout=60)
    paths.append(f"{answer.headers['Location']}/files/{FILE}")


class Client(FastHttpUser):
    """Asks again as soon as it is answered."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        if SCENARIO == "generate":
            self.client.post(
                "/v1/adapters", json={"description": f"Name the colour {uuid.uuid4()}."}
            )
        elif SCENARIO == "mixed" and random.random() < NEW_SHARE:
            body = {"description": f"Name the colour {uuid.uuid4()}."}
            self.client.post("/v1/adapters", json=body, name="new")
        elif SCENARIO in ("cached", "mixed"):
            self.client.post("/v1/adapters", json=KNOWN)
        elif SCENARIO == "search":
            self.client.get("/v1/search?q=is+the+review+positive", name="search")
        else:
            self.client.get(paths[0], name="download")
