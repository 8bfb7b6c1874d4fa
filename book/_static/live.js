/* What needs no kernel: sliders swap pictures that were recorded when the book was built, and a
   question shows its answer once a reader has committed to a guess. */
"use strict";

function makeDisplay(root) {
  const data = root.querySelector("script[type='application/json']");
  const { labels, states, rows, tables } = JSON.parse(data.textContent);
  const controls = [...root.querySelectorAll("input, select")];
  const shown = root.querySelector(".live-state");
  const said = root.querySelector(".live-said");

  const position = (control) =>
    control.type === "range" ? Number(control.value) : control.selectedIndex;
  // The last control changes fastest.
  const state = () =>
    states[controls.reduce((sum, one, n) => sum * labels[n].length + position(one), 0)];

  function show(event) {
    const control = event.target;
    if (control.type === "range") {
      const label = labels[controls.indexOf(control)][position(control)];
      control.setAttribute("aria-valuetext", label);
      control.parentElement.querySelector("output").textContent = label;
    }
    const [file, words] = state();
    if (tables) { // each row is kept once
      shown.innerHTML = tables[parseInt(file)].map((n) => rows[n]).join("");
    } else {
      const image = shown.querySelector("img");
      image.src = `${data.dataset.address}/${file}`;
      image.alt = words;
    }
  }

  for (const control of controls) {
    control.addEventListener("input", show);
    control.addEventListener("change", () => { said.textContent = state()[1]; });
  }
  root.querySelector(".live-controls").hidden = false;
}

function makeQuestion(form) {
  const commit = form.querySelector("button");
  const answer = form.querySelector(".live-answer");
  const folded = form.querySelector("details");
  let committed = false;

  commit.hidden = false;
  folded.hidden = true;
  form.addEventListener("change", () => { commit.disabled = false; });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const guess = form.querySelector("input:checked");
    if (committed || !guess) return;
    committed = true;
    form.querySelector("fieldset").disabled = true;
    commit.setAttribute("aria-disabled", "true"); // and not disabled: the focus would be lost
    const measured = folded.querySelector("p");
    answer.textContent = `You guessed ${guess.value}. ${measured.textContent}`;
    measured.remove();
    folded.querySelector("summary").hidden = true;
    folded.open = true;
    folded.hidden = false;
  });
}

document.querySelectorAll(".live-display").forEach(makeDisplay);
document.querySelectorAll(".live-question").forEach(makeQuestion);
