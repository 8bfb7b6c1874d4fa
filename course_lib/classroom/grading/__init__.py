"""`course grade` and `course check`: submissions in, points and verdicts out.

command.py      chapter, seed and sandbox found or refused; the bar; the summary
gradebook.py    many: kept by hash, so that a killed run goes on
executor.py     where is graded: threads here, or a Dask cluster
grade.py        one submission, a pure function
sandbox/        where submitted code runs
grade_files.py  what is written: grades.csv and a folder for each student
quick_check.py  answers and checks alone, for the learner
"""
