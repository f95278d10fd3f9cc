"""The target hook: what the named server makes of an adapter; unnamed, what any of them makes."""

from collections.abc import Mapping

from library.base.models import DEFAULT_BASE, load_config
from library.errors import BaseModelError
from library.peft.readers import (
    OLLAMA_FAMILIES,
    READERS,
    SERVERS,
    VLLM_DEFAULT_RANK,
    Config,
    Server,
    refusals,
    scale,
)
from verification.artifact import Artifact, Context
from verification.hook import Finding

TARGET_HOOK = "target"
ADDED_TOKENS = "added_tokens.json"


def check_target(artifact: Artifact, context: Context) -> list[Finding]:
    """Findings for one server, or one finding that says which servers do not load it rightly."""
    if context.target is not None:
        return for_server(_server(context.target), artifact, context)
    config = artifact.config
    if config is None or config.get("peft_type") != "LORA":
        return []
    reasons = {
        server: [f.message for f in for_server(server, artifact, context) if f.severity == "refuse"]
        for server in SERVERS
    }
    failing = {server: messages for server, messages in reasons.items() if messages}
    if not failing:
        return []
    message = "; ".join(f"not for {name}: {messages[0]}" for name, messages in failing.items())
    return [Finding(TARGET_HOOK, "servers", "info", message, {"servers": failing})]


def for_server(server: Server, artifact: Artifact, context: Context) -> list[Finding]:
    """Findings on one server: does it load the adapter, and at the right strength?"""
    config = artifact.config
    if config is None:
        return [_refuse("no-config", server, f"{server} needs an adapter_config.json")]
    if config.get("peft_type") != "LORA":
        kind = str(config.get("peft_type"))[:40]
        return (
            []
            if server == "peft"
            else [_refuse("not-lora", server, f"{server} loads LoRA only, not {kind}")]
        )
    modules = {name: a[0] for name, (a, _) in artifact.pairs.items()}
    findings = [_refuse(code, server, why) for code, why in refusals(server, config, modules)]
    embedding = artifact.whole_embedding
    if server != "peft" and embedding is not None and not findings:
        why = f"{server} loads no whole embedding: {embedding}"
        findings.append(_refuse("embedding", server, why))
    if server == "sglang" and ADDED_TOKENS in artifact.names:
        why = f"sglang refuses a folder with {ADDED_TOKENS}"
        findings.append(_refuse("adds-tokens", server, why))
    if not findings:
        findings += _strength(server, config, modules)
        findings += _remarks(server, config, modules, context)
    return findings


def _strength(server: Server, config: Config, modules: Mapping[str, int]) -> list[Finding]:
    if READERS[server].scale == "peft":
        return []
    if not config.get("alpha_pattern"):  # then the scale goes by the rank alone
        modules = {name: rank for rank, name in {r: n for n, r in modules.items()}.items()}
    for name, rank in modules.items():
        right, applied = (scale(which, config, name, rank) for which in ("peft", server))
        if abs(applied - right) > 1e-6 * abs(right):
            reason = "rsLoRA" if config.get("use_rslora") else "rank_pattern or alpha_pattern"
            message = (
                f"{server} ignores {reason}: it would apply {name} with scale {applied:.4g} "
                f"instead of {right:.4g}; the portable profile avoids this"
            )
            evidence = {"module": name, "scale": applied, "right": right}
            return [Finding(TARGET_HOOK, "wrong-strength", "refuse", message, evidence)]
    return []


def _remarks(
    server: Server, config: Config, modules: Mapping[str, int], context: Context
) -> list[Finding]:
    """Findings on what to do before a server loads an adapter that it can load."""
    rank = max(modules.values())
    if server == "vllm" and rank > VLLM_DEFAULT_RANK:
        message = f"start vllm with --max-lora-rank {rank} or more"
        return [Finding(TARGET_HOOK, "rank-limit", "warn", message, {"rank": rank})]
    if server == "llama.cpp":
        message = "llama.cpp reads GGUF: write it with lorasmith export --as gguf"
        return [Finding(TARGET_HOOK, "needs-gguf", "info", message)]
    if server == "ollama":
        return _ollama_family(config, context)
    return []


def _ollama_family(config: Config, context: Context) -> list[Finding]:
    reference = context.base
    if reference is None and config.get("base_model_name_or_path") == DEFAULT_BASE:
        return []  # a Llama
    families = ", ".join(OLLAMA_FAMILIES)
    try:
        family = load_config(reference).model_type if reference is not None else None
    except BaseModelError as error:
        return [Finding(TARGET_HOOK, "family-unknown", "warn", str(error))]
    if family is None:
        message = f"ollama imports adapters of {families} only; the base's family is unknown"
        return [Finding(TARGET_HOOK, "family-unknown", "warn", message)]
    if family not in OLLAMA_FAMILIES:
        message = f"ollama imports adapters of {families}, not of {family}"
        return [_refuse("family", "ollama", message)]
    return []


def _server(name: str) -> Server:
    return next(server for server in SERVERS if server == name)


def _refuse(code: str, server: Server, message: str) -> Finding:
    return Finding(TARGET_HOOK, code, "refuse", message, {"server": server})
