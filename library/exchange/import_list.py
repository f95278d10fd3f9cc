"""A list of adapters to import: a JSONL file with one of them a line, and what it is for."""

from dataclasses import replace
from pathlib import Path

from library.errors import InputFileError
from library.exchange.importing import ImportRequest
from library.files import read_input
from library.peft.safetensors_file import BadFile, parse_object

LIST_SUFFIX = ".jsonl"
MEMBERS = ("source", "task", "description", "base", "license", "license_class")


def import_requests(file: Path, default: ImportRequest) -> list[ImportRequest]:
    """The imports that a list asks for.

    Args:
        file: each line has a "source", and any other of MEMBERS. A source that is a relative path
            is found from the file's folder.
        default: what a line does not say.
    Raises:
        MissingPath: the file is not there.
        InputFileError: it cannot be used.
    """
    lines = enumerate(read_input(file).splitlines(), start=1)
    requests = [
        _request(line, f"{file}, line {number}", file.parent, default)
        for number, line in lines
        if line.strip()
    ]
    if not requests:
        raise InputFileError(f"{file} lists no adapter")
    return requests


def _request(line: bytes, where: str, folder: Path, default: ImportRequest) -> ImportRequest:
    try:
        members = parse_object(line, where)
    except BadFile as error:
        raise InputFileError(str(error)) from error
    if "source" not in members or not members.keys() <= set(MEMBERS):
        raise InputFileError(f"{where}: it must have source, and may have {', '.join(MEMBERS[1:])}")
    if not all(isinstance(value, str) for value in members.values()):
        raise InputFileError(f"{where}: every value must be text")
    local = folder / members["source"]
    return replace(default, **members | ({"source": str(local)} if local.exists() else {}))
