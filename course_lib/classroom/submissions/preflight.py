"""`course preflight`: what would cost a notebook points before anybody has read an answer.

What can be mended is mended in place, and the notebook as it was is kept beside it. A renamed
notebook gets a copy under the chapter's name. The text of an answer is never changed: cells that
"Split Cell" made of one are joined again, and metadata, checks and ids are set right.
"""

import codecs
import json
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import nbformat

from course_lib.classroom.files import find_source, lesson_sources
from course_lib.classroom.learner import keep, untouched
from course_lib.classroom.release import CHECK, Assignment, assignment
from course_lib.classroom.submissions.answers import find_answers, is_blank, parts
from course_lib.classroom.submissions.cells import Cell, Malformed, load_json, parse_notebook

DECIDE = ("grade", "solution", "task", "points", "schema_version")  # what nbgrader does with a cell
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Finding:
    """One sentence on a notebook, and whether what it says was mended."""

    text: str
    mended: bool = False


def preflight(path: Path) -> list[Finding]:
    """Look a notebook through before it is handed in, and mend what can be mended.

    Args:
        path: a notebook; it is written only where something was mended, and kept beside.

    Returns:
        what was found; all is well where there is nothing that was not mended.

    Raises:
        OSError: it cannot be read or written.
    """
    try:
        content, findings = load(path.read_bytes())
        set_ = chapter_of(path, content)
    except Malformed as error:
        return [Finding(f"no notebook that can be graded: {error}")]
    mended, more = mend(content, set_)
    findings += more
    target = path.with_name(f"{set_.chapter}.ipynb")
    if target.exists() and target != path:
        findings.append(Finding(f"it should be called {target.name}; a file of that name is here"))
        target = path
    elif target != path:
        findings.append(Finding(f"it should be called {target.name}; a copy is, now", True))
    if any(one.mended for one in findings):
        if target == path:
            findings.append(Finding(f"as it was it is kept as {keep(path).name}", True))
        text = json.dumps(mended, indent=1, ensure_ascii=False) + "\n"
        target.write_bytes(text.encode("utf-8"))
    answers, notes = find_answers(set_, _parsed(mended["cells"]))
    empty = [f"{name}: no answer yet" for name in set_.points if name not in answers]
    return findings + [Finding(text) for text in [*notes, *empty]]


def load(data: bytes) -> tuple[dict, list[Finding]]:
    """A notebook file as JSON of format 4, and what had to be mended for that.

    Raises:
        Malformed: it cannot be mended.
    """
    findings = []
    if data.startswith(MARKS):
        coding = "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-16"
        data = data.decode(coding, "replace").encode("utf-8")
        findings.append(Finding("it was saved with a byte order mark; now it is plain UTF-8", True))
    content = load_json(data)
    version = content.get("nbformat") if isinstance(content, dict) else None
    if type(version) is int and version < 4:
        try:
            content = json.loads(nbformat.writes(nbformat.reads(data.decode(), as_version=4)))
        except Exception as error:  # an old notebook may be wrong in a dozen ways
            raise Malformed(f"format {version}, and nbformat cannot read it: {error}") from None
        findings.append(Finding(f"it was of nbformat {version}; now it is of nbformat 4", True))
    if isinstance(content, dict) and isinstance(content.get("cells"), list):
        findings += _set_ids(content)
    parse_notebook(json.dumps(content).encode())
    return content, findings


def _set_ids(content: dict) -> list[Finding]:
    """In place: an id of its own for each cell, as nbformat 4.5 asks for."""
    minor = content.get("nbformat_minor")
    asked = type(minor) is int and minor >= 5
    seen, wrong = Counter(), 0
    for cell in (cell for cell in content["cells"] if isinstance(cell, dict)):
        name = cell.get("id")
        if asked or "id" in cell:
            if not isinstance(name, str) or not name or seen[name]:
                wrong += 1
                cell["id"] = name = uuid4().hex[:8]
            seen[name] += 1
    return [Finding(f"cells without an id of their own: {wrong}", True)] if wrong else []


def chapter_of(path: Path, content: dict) -> Assignment:
    """What a notebook answers: by its name, else by the exercises that it holds.

    Raises:
        Malformed: it is of no chapter.
    """
    try:
        return assignment(find_source(path.name).stem)
    except LookupError:
        cells = parse_notebook(json.dumps(content).encode())
        names = {cell.grade_id.removeprefix(CHECK) for cell in cells}
        every = [assignment(source.stem) for source in lesson_sources()]
        found = {a.chapter: len(names & set(a.points)) or len(find_answers(a, cells)[0])
                 for a in every}  # fmt: skip
        best = max(every, key=lambda a: found[a.chapter])
        if not found[best.chapter]:
            raise Malformed("it holds no exercise of the course") from None
        return best


def mend(content: dict, set_: Assignment) -> tuple[dict, list[Finding]]:
    """A notebook with one cell for each answer and one check behind it; and what was mended."""
    content, findings = deepcopy(content), []
    fresh = {_grade_id(cell): cell for cell in untouched(find_source(set_.chapter)).cells}
    for name in set_.points:
        answer, some = _one_answer(content["cells"], name, fresh[name])
        findings += some + _one_check(content["cells"], name, answer, fresh[CHECK + name])
    for name, cell in fresh.items():
        if _nbgrader(cell).get("solution") and name not in set_.points:
            findings += _one_question(content["cells"], name, cell)
    if findings:
        content["nbformat_minor"] = nbformat.current_nbformat_minor  # cells put back have ids
        _set_ids(content)
    return content, findings


def _one_answer(cells: list[dict], name: str, fresh: dict) -> tuple[dict, list[Finding]]:
    """In place: exactly one code cell of that grade_id, which is returned."""
    own = [cell for cell in cells if _grade_id(cell) == name]
    if not own:
        return _named_again(cells, name, fresh)
    code = [cell for cell in own if cell["cell_type"] == "code"]
    kept = [code[i] for i in parts(name, [_source(cell) for cell in code])] or code or own
    answer, findings = kept[-1], []
    if len(own) > 1:
        answer["source"] = "\n".join(_source(cell) for cell in kept)
        for cell in own:
            if cell is not answer:
                del cell["metadata"]["nbgrader"]
        gone = [c for c in code if _is_in(c, kept) or is_blank(name, _source(c))]
        cells[:] = [cell for cell in cells if cell is answer or not _is_in(cell, gone)]
        findings.append(Finding(f"{name}: {len(own)} cells had its name; now one has", True))
    if answer["cell_type"] != "code":
        findings.append(Finding(f"{name}: its cell was no code; now it is", True))
        answer |= {"cell_type": "code", "outputs": [], "execution_count": None}
        answer.pop("attachments", None)
    if not _same(answer, fresh):
        answer["metadata"]["nbgrader"] = deepcopy(_nbgrader(fresh))
        findings.append(Finding(f"{name}: its cell's metadata are set right", True))
    return answer, findings


def _named_again(cells: list[dict], name: str, fresh: dict) -> tuple[dict, list[Finding]]:
    """In place: the name for the cell with the answer, else an empty cell before its check."""
    alone = Assignment("", {name: 1}, (), ())
    holders = [cell for cell in cells if find_answers(alone, _parsed([cell]))[0]]
    if holders and _grade_id(holders[-1]):
        text = f"{name}: its answer stands in the cell of {_grade_id(holders[-1])}; give it its own"
        return holders[-1], [Finding(text)]
    if holders:
        holders[-1].setdefault("metadata", {})["nbgrader"] = deepcopy(_nbgrader(fresh))
        return holders[-1], [Finding(f"{name}: its cell had lost its name; now it has it", True)]
    checks = [i for i, cell in enumerate(cells) if _grade_id(cell) == CHECK + name]
    empty = deepcopy(fresh)
    cells.insert(checks[0] if checks else len(cells), empty)
    return empty, [Finding(f"{name}: its cell was gone; an empty one is put back", True)]


def _one_check(cells: list[dict], name: str, answer: dict, fresh: dict) -> list[Finding]:
    """In place: exactly one check of an exercise, behind its answer."""
    own = [cell for cell in cells if _grade_id(cell) == CHECK + name]
    if not own:
        cells.insert(_place(cells, answer) + 1, deepcopy(fresh))
        return [Finding(f"{name}: its check was gone; it is put back", True)]
    behind = [cell for cell in own if _place(cells, cell) > _place(cells, answer)]
    check, findings = (behind or own)[0], []
    for cell in own:
        if cell is not check:
            del cell["metadata"]["nbgrader"]
            text = f"{name}: it had a second check; that is a plain cell now"
            findings.append(Finding(text, True))
    if _place(cells, check) < _place(cells, answer):
        cells.pop(_place(cells, check))
        cells.insert(_place(cells, answer) + 1, check)
        findings.append(Finding(f"{name}: its check stood before the answer; it is moved", True))
    calls = check["cell_type"] == "code" and f"check({name})" in _source(check)
    if not (calls and _same(check, fresh)):
        check.clear()
        check |= deepcopy(fresh)
        findings.append(Finding(f"{name}: its check was changed; it is restored", True))
    return findings


def _one_question(cells: list[dict], name: str, fresh: dict) -> list[Finding]:
    """In place: exactly one cell of a question that people grade, with all that was written."""
    own = [cell for cell in cells if _grade_id(cell) == name]
    if not own:
        cells.append(deepcopy(fresh))
        return [Finding(f"{name}: its cell was gone; the question stands at the end again", True)]
    if len(own) == 1:
        return []
    written = [cell for cell in own if _source(cell).strip() != _source(fresh).strip()] or own[:1]
    own[0]["source"] = "\n\n".join(_source(cell) for cell in written)
    cells[:] = [cell for cell in cells if cell is own[0] or not _is_in(cell, own)]
    return [Finding(f"{name}: {len(own)} cells had its name; they are joined", True)]


def _place(cells: list[dict], cell: dict) -> int:
    return next(i for i, one in enumerate(cells) if one is cell)


def _is_in(cell: dict, cells: list[dict]) -> bool:
    return any(cell is one for one in cells)


def _same(cell: dict, fresh: dict) -> bool:
    """Whether nbgrader takes both for the same; a checksum belongs to a cell's own source."""
    return all(_nbgrader(cell).get(key) == _nbgrader(fresh).get(key) for key in DECIDE)


def _parsed(cells: list[dict]) -> list[Cell]:
    return parse_notebook(json.dumps({"nbformat": 4, "cells": cells}).encode())


def _source(cell: dict) -> str:
    return "".join(cell["source"])


def _nbgrader(cell: dict) -> dict:
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _grade_id(cell: dict) -> str:
    name = _nbgrader(cell).get("grade_id")
    return name if isinstance(name, str) else ""
