"""The checked-in table of verdicts, and whether what the product says of a machine is what the table says."""

import dataclasses

from .steelyard import REPOSITORY

TABLE = REPOSITORY / "docs" / "verdicts.md"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    code: str
    sentence: str
    remedy: str


def table():
    """The rows of docs/verdicts.md by their code."""
    rows = {}
    for line in TABLE.read_text().splitlines():
        if not line.startswith("| `"):
            continue
        code, sentence, remedy = (cell.strip() for cell in line.strip("| ").split(" | "))
        code = code.strip("`")
        if code in rows:
            raise RuntimeError(f"{TABLE.name} has {code} twice")
        rows[code] = Verdict(code, sentence, remedy)
    if not rows:
        raise RuntimeError(f"{TABLE.name} has no rows")
    for column in ("sentence", "remedy"):
        texts = [getattr(v, column) for v in rows.values()]
        if len(set(texts)) != len(texts):
            raise RuntimeError(f"two verdicts of {TABLE.name} share a {column}")
    return rows


def check(api, machine, code):
    """The machine has failed: its description and the verdict on its last boot are those of `code`, and the
    description says what was seen last. Returns the description."""
    wanted = table()[code]
    text = api.machine(machine.system_id)["error_description"]
    boots = api.boots(machine.system_id)["boots"]
    judged = boots[0]["verdict"]["code"] if boots else "none: no boot is recorded"
    problems = [f"it lacks {part!r}" for part in (wanted.sentence, wanted.remedy, "Last seen: ") if part not in text]
    if judged != code:
        problems.append(f"the verdict on the boot is {judged}")
    others = [v.code for v in table().values() if v.code != code and v.sentence in text]
    if others:
        problems.append(f"it also has the sentence of {', '.join(others)}")
    if problems:
        raise RuntimeError(f"{machine.name} should have failed with {code}, but {'; '.join(problems)}; its description: {text!r}")
    return text
