"""The `course` command: doctor, check, progress, reset and build."""

import argparse
import sys
from pathlib import Path

CLASSROOM = "This needs jupytext and nbgrader. To get them: make lab"


def doctor(_: argparse.Namespace) -> int:
    """say what is there, what is missing and what to do about it"""
    from course_lib.doctor import report

    return report()


def check(arguments: argparse.Namespace) -> int:
    """run a notebook with nbval and say how each exercise stands"""
    from course_lib.classroom.check import NotANotebook, as_json, missing_checks, run_nbval, table
    from course_lib.classroom.files import find_notebook

    try:
        notebook = find_notebook(arguments.notebook)
        results = run_nbval([notebook], junit=arguments.junit)
        results += missing_checks(results, notebook)
    except (LookupError, NotANotebook) as error:
        return _complain(error)
    print(as_json(results) if arguments.json else table(results))
    return int(not all(result.passed for result in results))


def progress(_: argparse.Namespace) -> int:
    """list every exercise and how far you are with it"""
    from course_lib.exercises import progress as show
    from course_lib.exercises.engine.progress import progress_file

    show()
    print(f"kept in {progress_file()}\n(delete it to start afresh; append another's to merge them)")
    return 0


def reset(arguments: argparse.Namespace) -> int:
    """restore an untouched notebook and keep yours beside it"""
    try:
        from course_lib.classroom.files import NOTEBOOKS, find_source
        from course_lib.classroom.student import reset as restore

        source = find_source(arguments.notebook)
    except ImportError:
        return _complain(CLASSROOM)
    except LookupError as error:
        return _complain(error)
    print(restore(source, NOTEBOOKS / f"{source.stem}.ipynb"))
    return 0


def build(arguments: argparse.Namespace) -> int:
    """derive the notebooks of every lesson whose source changed, and run the solved ones"""
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


def _complain(reason: object) -> int:
    print(reason, file=sys.stderr)
    return 2


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; the exit status is 0 only if all is well."""
    parser = argparse.ArgumentParser(prog="course", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(function) -> argparse.ArgumentParser:
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        return command

    add(doctor)
    checking = add(check)
    checking.add_argument("notebook", help="a path or a number, as in 00")
    checking.add_argument("--json", action="store_true", help="print JSON instead of a table")
    checking.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML as well")
    add(progress)
    add(reset).add_argument("notebook", help="a number, as in 00")
    add(build).add_argument("--force", action="store_true", help="run every lesson again")
    arguments = parser.parse_args(words)
    return arguments.function(arguments)


if __name__ == "__main__":
    sys.exit(main())
