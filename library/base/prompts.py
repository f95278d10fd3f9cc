"""Prompts for the base model, bare or prompted, through its own chat template.

Bare, the user turn is the input alone, so the adapter has to carry the task. Prompted, it is the
task's definition, a blank line and the input.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from library.errors import UsageError

Mode = Literal["bare", "prompted"]
INPUT = "Input: "  # what an example in an instruction begins with
MARK = "\u2042"  # a message that no chat template contains


def user_turn(mode: Mode, definition: str, text: str) -> str:
    """The user's message for one input."""
    return text if mode == "bare" else f"{definition}\n\n{text}"


def with_examples(instruction: str, examples: Sequence[tuple[str, str]]) -> str:
    """An instruction with examples of (input, answer) below it, a blank line before each."""
    return "\n\n".join([instruction, *(example_block(*pair) for pair in examples)])


def example_block(text: str, answer: str) -> str:
    """An example as an instruction shows it."""
    return f"{INPUT}{text}\nOutput: {answer}"


def prompt_ids(tokenizer: Any, user: str) -> list[int]:
    """Token ids up to where the answer starts, with the template's default system turn.

    A model without a chat template is asked with the message and a line break.
    """
    return shots_ids(tokenizer, [], user)


def shots_ids(tokenizer: Any, shots: Sequence[tuple[str, str]], user: str) -> list[int]:
    """As `prompt_ids`, after examples of (user's message, answer) as earlier turns."""
    if getattr(tokenizer, "chat_template", None):
        turns = [
            turn
            for message, answer in shots
            for turn in (
                {"role": "user", "content": message},
                {"role": "assistant", "content": answer},
            )
        ]
        return chat_ids(tokenizer, [*turns, {"role": "user", "content": user}])
    examples = "".join(f"{message}\n{answer}\n\n" for message, answer in shots)
    return tokenizer(f"{examples}{user}\n")["input_ids"]


def chat_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of messages of any roles, up to where the answer starts.

    Raises UsageError if there is no chat template, or it does not take such messages.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("messages: the base model has no chat template")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise UsageError(f"messages: the chat template refuses them: {error}") from error
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def ids_before_user(tokenizer: Any) -> list[int]:
    """Token ids of what stands before the user's message in a prompt."""
    if getattr(tokenizer, "chat_template", None):
        turn = {"role": "user", "content": MARK}
        text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        return tokenizer(text.partition(MARK)[0], add_special_tokens=False)["input_ids"]
    return tokenizer("")["input_ids"]


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """Token ids of an answer to train on, with the end of sequence."""
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]
