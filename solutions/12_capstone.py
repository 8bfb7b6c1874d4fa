# %% [markdown]
# # 12 · Capstone
#
# **How do you put it together, and does it work on anything but text?**
#
# You have a drawer full of methods by now: masks, codes, codebooks, Huffman's code, teachers, factors, repairs. Each chapter
# showed one of them at its best, alone. A product needs *one* file, and it has to be small and good. Which methods add up? In
# which order? And how much of what you know is a law, and how much is a habit of one little language model?
#
# The articles that this course follows end with such hopes: methods "combined with other optimizations" (S3 §5), computer vision and speech
# (S2 §6.2, §6.3), "cross-model" and "multimodal" pruning (S2 §8), steadier text (S4 §6). They measure none of it. You will.
#
# * **Afterwards you can** write a recipe as data and run it so that a cut costs nothing; say which of a hundred results are worth having;
#   count a file's bytes before it is written; find the step that did the damage; write a model card that says what got worse;
#   and carry a method over to a network that hears, reads or compares.
# * **You need** chapters 05 to 09 and 11 in outline: every step here is a function of one of them.
# * **Time:** four hours; the open challenge takes as long as you let it.
# * **Core:** Exercises 1, 2, 4, 5, and sections 1, 3 and 6. **Extra:** a budget met to the byte (3), letters (6), your own file (7).
#
# ## 1. One picture
#
# Here is TinyLM's whole file, embedding and header and all, under some method of every chapter: each was written, read back, and measured
# from there. Left is small, low is good. With such a picture in front of you most results can go: if another file is
# smaller *and* better, nobody needs this one. What stays is the **Pareto front**.
#
# ## Exercise 1: what is worth having

# %% tags=["collapsed"]
# Imports
import os
import tempfile
import time
from pathlib import Path

import torch
from IPython.display import Markdown, display

from course_lib.challenge.picture import load_front
from course_lib.exercises import check, hint, yours
from course_lib.measure.edits import edits
from course_lib.measure.pareto import pareto_front as library_front
from course_lib.measure.yardstick import tiny_quality
from course_lib.pipeline.compressed_file import load_compressed, save_compressed
from course_lib.pipeline.report import float16_bytes, model_card, report
from course_lib.pipeline.run import from_dicts, run, to_dicts
from course_lib.pipeline.state import packed, ranks_of
from course_lib.pipeline.steps import Heal, Prune, Quantize, Round, tiny_given
from course_lib.plots.explore import explore
from course_lib.plots.figure import BLACK, BLUE, GREEN, ORANGE, RED, SKY, Picture, new_figure
from course_lib.plots.predict import predict

given = tiny_given()
dense_bytes = float16_bytes(given.dense)
dense_bits = tiny_quality(given.dense, given.tokenizer).bits_per_byte


# %% exercise="pareto_front"
