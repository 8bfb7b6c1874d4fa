"""`make bench`: comparisons as data, the table of them, the driver on toy commands, the limits."""

import json

import pytest

from benchmarks import bench, limits, measuring, pictures, results
from benchmarks.bench import Section
from benchmarks.course import quantile
from benchmarks.measuring import Comparison, Seconds
from course_lib.challenge.picture import FrontPoint

TOY = """
import sys
from benchmarks.measuring import Seconds, report
print("hello", *sys.argv[1:])
if "fail" in sys.argv:
    raise ValueError("nothing works today")
report("a toy", {"ours": Seconds([1, 2, 3]), "theirs": Seconds([4, 4, 4])}, 0.6,
       method="toy", quality=(9, 8), unit="dB")
"""


def compared(**more) -> Comparison:
    """Ours takes half of the peer's time, unless said otherwise."""
    return Comparison(
        **{"title": "t", "turns": {"ours": [1, 1], "peer": [2, 4]}, "goal": 0.5} | more
    )


# ---------------------------------------------------------------- comparisons


def test_seconds_are_the_median_and_remember_their_turns():
    found = Seconds([3.0, 1.0, 2.0])
    assert found == 2 and found.turns == (3, 1, 2) and found / 2 == 1


def test_sides_take_turns_and_a_quick_run_has_three(monkeypatch):
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert [len(s.turns) for s in measuring.cpu_seconds(sides, 5).values()] == [5, 5]
    assert calls == ["a", "b"] * 5
    monkeypatch.setattr(measuring, "QUICK", True)
    assert len(measuring.cpu_seconds(sides, 5)["a"].turns) == 3


def test_a_ratio_is_of_medians_and_its_spread_of_turns():
    assert compared().ratio("peer") == pytest.approx((1 / 3, 1 / 4, 1 / 2))


@pytest.mark.parametrize(
    ("quality", "more", "good"),
    [((2, 1), True, True), ((1, 2), True, False), ((1, 2), False, True), ((2, 1), False, False),
     ((1, 1), True, True), ((-1, -1), False, True), ((0, 0), False, True), ((1, 0), False, False)],
)  # fmt: skip
def test_ahead_only_if_the_quality_is_not_worse(quality, more, good):
    found = compared(quality=dict(zip(("ours", "peer"), quality, strict=True)), more=more)
    assert found.as_good("peer") is good
    assert found.is_ahead("peer") is good
    assert found.is_met() is good


def test_what_was_not_compared_is_not_ahead_but_may_meet_its_goal():
    assert compared().as_good("peer") is None
    assert not compared().is_ahead("peer") and compared().is_met()


def test_slower_is_never_ahead():
    slow = compared(turns={"ours": [5], "peer": [2]}, quality={"ours": 2, "peer": 1})
    assert not slow.is_ahead("peer") and slow.is_met() is False


def test_a_tie_is_not_ahead():
    tie = compared(turns={"ours": [1, 3, 1], "peer": [2, 2, 2]}, quality={"ours": 1, "peer": 1})
    assert tie.ratio("peer")[0] == 0.5 and not tie.is_ahead("peer")


def test_what_counts_as_equal_is_a_share_of_the_peers():
    near = {"quality": {"ours": 99.0, "peer": 100.0}}
    assert compared(**near, equal=0.02).is_ahead("peer")
    assert not compared(**near, equal=0.005).is_ahead("peer")


def test_a_goal_of_memory_counts():
    memory = {"memory": {"ours": 50.0, "peer": 100.0}}
    assert compared(**memory, memory_goal=0.5).is_met()
    assert compared(**memory, memory_goal=0.4).is_met() is False
    assert compared(memory_goal=0.4).is_met() is False  # nobody measured it
    assert compared(goal=None).is_met() is None


def test_a_report_is_printed_and_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(measuring.RECORD, str(tmp_path / "record"))
    seconds = {"ours": Seconds([1, 3, 2]), "peer": Seconds([4, 4, 4])}
    made = measuring.report("words", seconds, 0.6, quality=(2, 1), unit="dB", memory=(2**20, 2**21))
    line = json.loads((tmp_path / "record").read_text("utf-8"))
    assert Comparison(**line).ratio("peer") == made.ratio("peer") == (0.5, 0.25, 0.75)
    assert "2 dB, +1 MiB" in (said := capsys.readouterr().out)
    assert "ratio 0.500 (0.25 to 0.75) (goal ≤ 0.6)" in said


def test_a_time_that_was_scaled_has_one_turn(monkeypatch):
    monkeypatch.delenv(measuring.RECORD, raising=False)
    assert measuring.report("t", {"a": 2.0, "b": 4.0}, None).ratio("b") == (0.5, 0.5, 0.5)


def test_tables_are_chosen_by_name(monkeypatch):
    done = []
    tables = {name: lambda name=name: done.append(name) for name in ("one", "two", "three")}
    monkeypatch.setattr("sys.argv", ["x"])
    measuring.run_tables(tables, ("one", "two"))
    monkeypatch.setattr("sys.argv", ["x", "three"])
    measuring.run_tables(tables, ("one", "two"))
    assert done == ["one", "two", "three"]
    monkeypatch.setattr("sys.argv", ["x", "four"])
    with pytest.raises(SystemExit, match="one | two | three"):
        measuring.run_tables(tables, ())


# ---------------------------------------------------------------- the driver


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Sections of a toy module."""
    (tmp_path / "toy_bench.py").write_text(TOY, "utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{bench.ROOT}:{tmp_path}")
    return {
        "good": Section("good", "05", "Good", "toy_bench", ("long",), ("short",)),
        "bad": Section("bad", "06", "Bad", "toy_bench", ("fail",), None),
        "absent": Section("absent", "07", "Absent", "toy_bench", needs=("no_such_module",)),
    }


def test_a_section_that_failed_says_why_and_the_others_go_on(toy, tmp_path, capfd):
    assert bench.bench([toy["bad"], toy["absent"], toy["good"]], False, tmp_path) == 1
    found = results.read(tmp_path / "results.json")["sections"]
    assert found["bad"]["problem"] == "failed (1): ValueError: nothing works today"
    assert found["bad"]["output"] == ["hello fail"]
    assert found["absent"]["problem"] == "not run: no_such_module is not installed"
    assert found["good"]["problem"] == "" and found["good"]["seconds"] > 0
    assert found["good"]["comparisons"][0]["turns"]["ours"] == [1, 2, 3]
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "**failed (1): ValueError: nothing works today**" in page
    assert (
        "| 05 | toy | a toy | theirs | 0.500 (0.25 to 0.75) | – | 9; 8 dB | ≤ 0.6 | met, ahead |"
        in page
    )
    assert "hello fail" in capfd.readouterr().out


def test_one_section_is_replaced_and_an_absent_peer_is_no_failure(toy, tmp_path, capfd):
    assert bench.bench([toy["good"], toy["absent"]], False, tmp_path) == 0
    before = results.read(tmp_path / "results.json")["sections"]
    assert bench.bench([toy["good"]], True, tmp_path) == 0
    after = results.read(tmp_path / "results.json")["sections"]
    assert after["absent"] == before["absent"]
    assert before["good"]["output"][0] == "hello long" and not before["good"]["quick"]
    assert after["good"]["output"][0] == "hello short" and after["good"]["quick"]
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "hello short" in page and "hello long" not in page and "toy (QUICK)" in page


def test_sections_are_chosen_by_name_and_a_quick_run_leaves_some_out(toy):
    every = tuple(toy.values())
    assert bench.choose([], False, every) == list(every)
    assert bench.choose([], True, every) == [toy["good"]]
    assert bench.choose(["absent"], False, every) == [toy["absent"]]
    with pytest.raises(ValueError, match="no section is called x; there are good, bad, absent"):
        bench.choose(["x"], False, every)


def test_every_section_has_a_module_and_a_name_of_its_own():
    names = [section.name for section in bench.SECTIONS]
    assert len(set(names)) == len(names)
    for section in bench.SECTIONS:
        path = bench.ROOT / f"{section.module.replace('.', '/')}.py"
        assert path.is_file()
        text = path.read_text("utf-8")
        assert all(f'"{word}"' in text for word in section.quick or ())


def test_the_stored_page_is_made_of_the_stored_data():
    assert results.PAGE.read_text("utf-8") == results.page(results.read())


def test_the_load_says_whether_others_were_at_work():
    assert results.load_in_words(0.1, 2).endswith("2 cores before it began: an idle machine")
    assert results.load_in_words(2.5, 2).startswith("load 2.5 on 2 cores")
    assert "a busy machine" in results.load_in_words(2.5, 2)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_the_exponent_of_an_exact_power(power):
    sizes = [8.0, 16.0, 32.0, 64.0]
    assert results.exponent(sizes, [7 * s**power for s in sizes]) == pytest.approx(power, abs=1e-9)


def test_a_quantile_is_one_of_the_numbers():
    numbers = [float(n) for n in range(100, 0, -1)]
    assert (
        quantile(numbers, 0.95) == 95 and quantile(numbers, 1) == 100 and quantile([7.0], 0.95) == 7
    )


@pytest.mark.parametrize("bits", limits.BITS)
def test_limits_stand_in_their_known_order(bits):
    coded, lloyd_max, even = limits.IN_THEORY[bits]
    assert limits.shannon(bits) > coded > lloyd_max > even
    assert limits.shannon(bits) - coded == pytest.approx(1.53, abs=0.02)  # πe/6, at a high rate


def test_shannons_lower_bound_for_students_t():
    """24.49 dB at 4 bits: the entropy by a sum over a fine grid of the density."""
    import torch

    x = torch.linspace(-400, 400, 2_000_001, dtype=torch.float64)
    p = limits.student(limits.FREEDOM)(x)
    p /= p.sum() * (step := x[1] - x[0])
    entropy = float(-(p * p.log2()).sum() * step)
    assert limits.student_entropy(limits.FREEDOM) == pytest.approx(entropy, abs=1e-5)
    assert limits.shannon(4, entropy) == pytest.approx(24.49, abs=0.01)
    assert limits.shannon(4, entropy) > limits.shannon(4)


def test_three_ways_to_spend_four_bits():
    """On 65,536 normal numbers; a sample of them is off by some hundredths of a dB."""
    import torch

    x = torch.randn(2**16, generator=torch.Generator().manual_seed(0))
    ways = limits.coded(x, 4), limits.best_levels(x, 4, limits.normal), limits.even(x, 4)
    coded, lloyd_max, even = (limits.decibels(x, way) for way in ways)
    assert limits.shannon(4) > coded > lloyd_max > even
    assert lloyd_max == pytest.approx(limits.IN_THEORY[4][1], abs=0.15)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("chapter", "method", "kind"),
    [("00", "float16", ""), ("03", "half, healed", "removed"), ("05", "3 bits", "fewer bits"),
     ("07", "3 bits, trained", "trained"), ("11", "half of the weights, Wanda", "removed"),
     ("11", "2 of 4, SparseGPT, 4 bits", "combined"), ("11", "3 bits, GPTQ", "fewer bits"),
     ("09", "low rank, 4/5 of the numbers", "removed"), ("12", "anything", "combined")],
)  # fmt: skip
def test_every_method_has_a_kind(chapter, method, kind):
    assert pictures.kind(FrontPoint(chapter, method, 1, 1.0)) == kind


def test_the_speed_picture_reads_chapter_10():
    table = pictures.speed_table()
    assert all(value == 1 for value in table["float32"].values())
    assert {1, 8, 64, 1024} <= table["4-bit weights"].keys()
    assert len(pictures.draw_speed(table).axes) == 1


def test_the_peers_picture_has_a_bar_for_each_method_with_a_goal_its_slowest():
    slow = compared(turns={"ours": [3, 3], "peer": [2, 4]})
    several = [compared(), slow, compared(goal=None), compared(method="other", goal=0.2)]
    axes = pictures.draw_peers(several).axes[0]
    assert len(axes.get_yticks()) == 2
    assert pictures.goals(several) == [several[3], slow]
