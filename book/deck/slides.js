// Formulas are set, then each body's type shrinks until it fits its box.
const SMALLEST = 10

function fit(body) {
  let size = parseFloat(getComputedStyle(body).fontSize)
  const over = () => body.scrollHeight > body.clientHeight + 1 || body.scrollWidth > body.clientWidth + 1
  while (over() && size > SMALLEST) body.style.fontSize = `${(size -= 1)}px`
}

// The speaker's window has no MathJax: notes get MathML, which browsers set by themselves.
async function formulasInNotes() {
  const found = /\\\((.+?)\\\)|\\\[(.+?)\\\]/gs
  for (const notes of document.querySelectorAll('aside.notes')) {
    const set = (_, inline, display) => {
      const text = document.createElement('textarea')
      text.innerHTML = inline ?? display
      return MathJax.tex2mml(text.value, { display: !inline })
    }
    notes.innerHTML = notes.innerHTML.replace(found, set)
  }
}

window.MathJax = {
  options: { enableMenu: false, ignoreHtmlClass: 'notes', enableAssistiveMml: false },
  startup: {
    typeset: false,
    ready() {
      MathJax.startup.defaultReady()
      MathJax.startup.promise.then(async () => {
        await Reveal.initialize({
          width: 1280, height: 720, margin: 0, minScale: 0.1, center: false, display: 'flex', hash: true,
          controls: false, slideNumber: 'c/t', transition: 'none', viewDistance: 1000, mobileViewDistance: 1000, plugins: [RevealNotes],
        })
        await MathJax.typesetPromise()
        await formulasInNotes()
        document.querySelectorAll('.body').forEach(fit)
        document.body.dataset.ready = 'yes'
      })
    },
  },
}
