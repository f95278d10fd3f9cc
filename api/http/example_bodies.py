"""Bodies of requests and answers, for examples: as this service writes them, lists cut short."""

from typing import Any

from library.base.models import DEFAULT_BASE

ADAPTER = "ad_b43c0b46f2e25f6c96101ef4aa93d89d5f9731bc"
NAME = "reviews"
JOB = "job_9bd4b49b744bcafbf6b3c4b296c185dc"
TASK = "Say whether the review is positive or negative."
PAIRS = [
    {"input": "Great film!", "output": "positive"},
    {"input": "Dull.", "output": "negative"},
]
NEAREST = "ad_a895a4eec0351d56ea382692aec6882abbdd6874"
_NEAREST_TASK = "task478_cls_english_music_classification"
_SHA256 = {
    "README.md": ("60269cbda3ce070597f9756e74b012bc5fac426b6466f55459e21b913210f883", 789),
    "adapter_config.json": (
        "1d209929f5d5940103c9e5ad980deed8a3f99d2f816a91dc5786f04a0ced7c44",
        572,
    ),
    "adapter_model.safetensors": (
        "462ba0b7dc1e5a262ed6ffc6c413582eb04faeafb439a2dfe9cdba6639535efd",
        4939072,
    ),
    "provenance.json": ("2f800413c491223f54530175ebab024733f64b198156cba92d9bc7571493f9bc", 2584),
}
_EXPECTED = {
    "hook": "expected",
    "code": "expected-untested",
    "severity": "warn",
    "message": "22 to 70 of 100 answers are expected to be exactly right (50 at best guess; from "
    "30 user-style tasks that nothing was trained on), as of others of its kind: of its own "
    "answers none was tested, as four examples or more would allow",
    "evidence": {"score": 49.8, "low": 22.5, "high": 70.2},
}
_STATISTICS = {
    "hook": "statistics",
    "code": "statistics-not-comparable",
    "severity": "info",
    "message": "no comparison: adapters that are generated or refined differ from the library's; "
    "‖ΔW‖ is 2.02 to 27 over 210 modules",
    "evidence": {"norm": [2.02196, 27.0213]},
}
RECORD = {
    "id": ADAPTER,
    "sha256": _SHA256["adapter_model.safetensors"][0],
    "generator": "multi-task",
    "base_model": DEFAULT_BASE,
    "layout_digest": "946ca7c3dcc651c7a98e0cc30478fa47efb3f49f090484775fc3fef3c59c2421",
    "rank": 8,
    "seed": 0,
    "start": None,
    "usage": {"mode": "prompted", "template": f"{TASK}\n\n{{input}}"},
    "expected": {
        "score": 49.8,
        "low": 22.5,
        "high": 70.2,
        "calibration": "from 30 user-style tasks that nothing was trained on",
    },
    "chosen": {
        "strategy": "multi-task",
        "reason": "the only strategy asked for",
        "neighbours": [{"id": NEAREST, "task": _NEAREST_TASK, "similarity": 0.567898}],
        "predicted_recovery": None,
    },
    "refined": None,
    "report": {"verdict": "warn", "findings": [_EXPECTED, _STATISTICS]},
    "files": {
        name: {"url": f"/v1/adapters/{ADAPTER}/files/{name}", "sha256": sha256, "bytes": size}
        for name, (sha256, size) in _SHA256.items()
    },
}

MERGED = {
    **RECORD,
    "generator": "compose",
    "rank": 10,
    "expected": None,
    "chosen": {
        "strategy": "compose",
        "reason": f"merged by cat: 0.7 of {ADAPTER}, 0.3 of {NEAREST}",
        "neighbours": [],
        "predicted_recovery": None,
    },
    "report": {"verdict": "accept", "findings": [_STATISTICS]},
}

UNDESCRIBED = {
    "type": "urn:lorasmith:problem:invalid-description",
    "title": "The description is invalid",
    "status": 422,
    "detail": "the description is empty",
    "code": "invalid-description",
    "instance": "urn:lorasmith:request:9f86d081884c7d659a2feaa0c55ad015",
}
IMPORTED = {
    **RECORD,
    "expected": None,
    "chosen": {
        "strategy": "import",
        "reason": "imported; its provenance names multi-task",
        "neighbours": [],
        "predicted_recovery": None,
    },
}


def job_example(**changes: Any) -> dict[str, Any]:
    """A job, queued but for the changes."""
    queued = {
        "id": JOB,
        "kind": "create",
        "adapter": None,
        "state": "queued",
        "progress": 0.0,
        "result": None,
        "error": None,
        "hooks": None,
    }
    return {**queued, **changes}


VERIFIED = job_example(
    kind="verify",
    adapter=ADAPTER,
    state="done",
    progress=1.0,
    hooks=["statistics"],
    result={"verdict": "accept", "findings": [_STATISTICS]},
)
STREAM = f"""event: progress
data: {{"id": "{JOB}", "kind": "refine", "adapter": null, "state": "running", "progress": 0.5, \
"result": null, "error": null, "hooks": null}}
retry: 2000

event: cancelled
data: {{"id": "{JOB}", "kind": "refine", "adapter": null, "state": "cancelled", "progress": 0.5, \
"result": null, "error": null, "hooks": null}}
retry: 2000

"""
_FIRST = {"version": 1, "adapter": ADAPTER, "created": "2026-03-02T09:30:00+00:00"}
_SUITE = "e543ca509e9c4933cc941a8a1722bee55fd44fa678cc755ab544f1a52eabb39d"
_PROMOTED = {
    "time": "2026-03-02T09:31:12+00:00",
    "action": "promoted",
    "from": None,
    "to": 1,
    "scores": {"from": None, "to": 2, "of": 2, "at_least": 1},
    "suite": _SUITE,
}
SUITE_ROWS = [
    {"input": "Great film!", "output": "positive"},
    {"input": "I would not see it again.", "outputs": ["negative", "Negative."]},
]
VERSION = {"name": NAME, **_FIRST}
NAMES = {"names": [{"name": NAME, "current": 1, "newest": 1}]}
NAMED = {
    **NAMES["names"][0],
    "versions": [_FIRST],
    "suite": {"digest": _SUITE, "rows": 2},
    "history": [_PROMOTED],
}
ROLLED_BACK = {
    "name": NAME,
    "time": "2026-03-09T17:02:45+00:00",
    "action": "rolled-back",
    "from": 2,
    "to": 1,
    "scores": None,
    "suite": None,
}
METRICS = """# HELP lorasmith_jobs_running Jobs that run.
# TYPE lorasmith_jobs_running gauge
lorasmith_jobs_running 1.0
"""
README = f"# LoRA adapter {ADAPTER}\n"
RESULTS = {
    "results": [
        {
            "id": NEAREST,
            "task": _NEAREST_TASK,
            "score": 0.5874,
            "confidence": 0.9423,
            "by": "description",
        }
    ]
}
LIBRARY_PAGE = {
    "adapters": [
        {
            "id": "ad_3548050cb4d825694e5643ad412a8a4e982ba13d",
            "sha256": "b85a0a65c0ac9fd42d341832875e1f987dd759420691a5ffaf7f89a07b8b4e4f",
            "task": "task063_first_i_elements",
            "recipe": "lora",
            "base_model": DEFAULT_BASE,
            "rank": 2,
            "score": 1.0,
        }
    ],
    "next": "ad_3548050cb4d825694e5643ad412a8a4e982ba13d",
}
LIBRARY_MAP = {
    "adapters": [{"x": 0.3214, "y": -0.1175, "id": NEAREST, "task": _NEAREST_TASK}],
    "total": 24,
    "explained": 0.1976,
    "query": {"x": 0.3021, "y": -0.2096},
}
DESCRIBED = {
    "id": NEAREST,
    "sha256": "6ece633d4ce525c97193f40847c2b8d8d1bf55f7cbabc0a84ddd697683a44419",
    "task": _NEAREST_TASK,
    "recipe": "lora",
    "base_model": DEFAULT_BASE,
    "rank": 2,
    "score": 1.0,
    "description": "In this task, you are given music product reviews in English language. The "
    'goal is to classify the review as "POS" if the overall sentiment of the review is positive '
    'or as "NEG" if the overall sentiment of the review is negative.',
    "categories": ["Sentiment Analysis"],
    "licenses": ["CC BY 4.0"],
}
GENERATORS = {
    "generators": [
        {
            "name": "icm-lora",
            "default": False,
            "checkpoint": "358709338a29c2cbe2dccd81a0bd74a8a057c67300c5d748eadd96a507e296bd",
            "base_model": DEFAULT_BASE,
            "layout_digest": "1efe544b7303275aac05a2a2103e4dd0e2daf200b6b4a66582a8dd0a62752510",
            "rank": 2,
            "needs": ["description", "base"],
            "uses_examples": True,
            "draws": True,
            "trained_on": 256,
            "held_out": {
                "bare": 0.2103,
                "prompted": 0.2191,
                "tasks": 34,
                "report": "docs/results/icm-lora-heldout.json",
            },
            "seconds": 0.411,
        }
    ]
}
BASE_MODELS = {"base_models": [{"name": DEFAULT_BASE, "default": True, "base_model": DEFAULT_BASE}]}
CHAT = {
    "model": f"generated/{ADAPTER}",
    "messages": [{"role": "user", "content": f"{TASK}\n\nGreat film!"}],
    "temperature": 0,
}
TEXT = {
    "model": DEFAULT_BASE,
    "prompt": "The capital of France is",
    "max_tokens": 2,
    "temperature": 0,
    "logprobs": 1,
}
CHATTED = {
    "id": "chatcmpl-98b55307c3574229a176eeaacab12136",
    "object": "chat.completion",
    "created": 1795865500,
    "model": CHAT["model"],
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Positive"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 44, "completion_tokens": 2, "total_tokens": 46},
}
COMPLETED = {
    "id": "cmpl-be30eb718aed4febb64686a4f93b7836",
    "object": "text_completion",
    "created": 1795865500,
    "model": DEFAULT_BASE,
    "choices": [
        {
            "index": 0,
            "text": " Paris.",
            "logprobs": {
                "tokens": [" Paris", "."],
                "token_logprobs": [-0.2581, -0.3801],
                "top_logprobs": [{" Paris": -0.2581}, {".": -0.3801}],
                "text_offset": [0, 6],
            },
            "finish_reason": "length",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
TEXT_STREAM = f"""data: {{"id": "cmpl-be30eb718aed4febb64686a4f93b7836", \
"object": "text_completion", "created": 1795865500, "model": "{DEFAULT_BASE}", \
"choices": [{{"index": 0, "text": " Paris", "logprobs": null, "finish_reason": null}}]}}

data: [DONE]

"""
CHAT_STREAM = f"""data: {{"id": "chatcmpl-98b55307c3574229a176eeaacab12136", \
"object": "chat.completion.chunk", "created": 1795865500, "model": "generated/{ADAPTER}", \
"choices": [{{"index": 0, "delta": {{"content": "Positive"}}, "logprobs": null, \
"finish_reason": null}}]}}

data: [DONE]

"""
MODELS = {
    "object": "list",
    "data": [
        {
            "id": name,
            "object": "model",
            "created": 1795865500,
            "owned_by": "lorasmith",
            "parent": parent,
        }
        for name, parent in ((DEFAULT_BASE, None), (f"generated/{ADAPTER}", DEFAULT_BASE))
    ],
}
