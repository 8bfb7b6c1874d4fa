"""Cases in, values out, verdict elsewhere: three pure stages, of which one runs a learner's code.

cases(exercise) -> inputs             spec.py
run(function, inputs) -> outcomes     run.py     the only stage that calls a learner's function
judge(exercise, outcomes) -> Verdict  judge.py   sees values, never the function

Where an answer must also be quick, pace.py counts the CPU's seconds beside a plain function's.
"""
