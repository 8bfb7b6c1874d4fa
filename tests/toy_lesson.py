"""A lesson that takes seconds, for the tests of the builder and the checker."""

from pathlib import Path

from nbformat import NotebookNode

SOURCE = '''\
# %% [markdown]
# # A toy lesson
# Text with $x^2$.

# %%
import matplotlib.pyplot as plt
from ipywidgets import IntSlider

from course_lib.exercises import check, hint

# %%
print("two lines\\nof text")

# %%
plt.plot([1, 2], [3, 4])
plt.title("a figure")
plt.show()

# %%
IntSlider(value=3, description="a slider")

# %% [markdown]
# ## Exercise

# %% exercise="count_parameters"
def count_parameters(model):
    """How many numbers the model learned, each counted once."""
    ### BEGIN SOLUTION
    return sum(parameter.numel() for parameter in model.parameters())
    ### END SOLUTION


# %% check="count_parameters" points=2
check(count_parameters)

# %% exercise="bits_per_byte"
import math


def bits_per_byte(losses, text):
    """Bits that the model needs for each byte of the text."""
    ### BEGIN SOLUTION
    return losses.sum() / math.log(2) / len(text.encode("utf-8"))
    ### END SOLUTION


# %% check="bits_per_byte" points=3
check(bits_per_byte)

# %% [markdown]
# ## Exercise

# %%
print("the end")
'''


def write_lesson(folder: Path, source: str = SOURCE, name: str = "00_toy") -> Path:
    """solutions/NAME.py and an empty notebooks/ in `folder`; returns the source's path."""
    for part in ("solutions", "notebooks"):
        (folder / part).mkdir(exist_ok=True)
    path = folder / "solutions" / f"{name}.py"
    path.write_text(source, "utf-8")
    return path


def answer(notebook: NotebookNode, exercise: str, code: str) -> None:
    """In place: write `code` into an answer cell, below what stands there."""
    cell = next(cell for cell in notebook.cells if cell.id == exercise)
    cell.source += f"\n\n\n{code}\n"
