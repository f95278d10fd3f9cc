"""What one client of `rest_load` does, as locust runs it: SCENARIO says which kind of request."""

import os
import uuid

from locust import FastHttpUser, constant, task  # pyright: ignore[reportMissingImports]

SCENARIO = os.environ["SCENARIO"]
KNOWN = {"description": "Say whether the review is positive or negative."}


class Client(FastHttpUser):
    """Asks again as soon as it is answered."""

    wait_time = constant(0)

    def on_start(self) -> None:
        answer = self.client.post("/v1/adapters", json=KNOWN, name="before")
        self.file = f"{answer.headers['Location']}/files/adapter_model.safetensors"

    @task
    def ask(self) -> None:
        if SCENARIO == "generate":
            self.client.post(
                "/v1/adapters", json={"description": f"Name the colour {uuid.uuid4()}."}
            )
        elif SCENARIO == "cached":
            self.client.post("/v1/adapters", json=KNOWN)
        elif SCENARIO == "search":
            self.client.get("/v1/search?q=is+the+review+positive", name="search")
        else:
            self.client.get(self.file, name="download")
