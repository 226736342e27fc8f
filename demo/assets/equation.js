// The drawer with this step's update: coefficients and sizes follow the playhead.

class Equation {
  constructor(element) {
    this.element = element;
    this.halves = [...element.querySelectorAll(".half")];
    this.last = null;
    element.addEventListener("toggle", () => this.last && this.show(...this.last));
  }

  // The formulas of a run; they stay until the next one.
  open(film) {
    this.halves.forEach((half, which) => {
      const { sampler, title, equation } = film.start.panes[which];
      half.dataset.sampler = sampler;
      half.querySelector(".title").textContent = title;
      half.querySelector(".where").textContent = equation.where;
      half.querySelector(".formula").innerHTML = equation.formula; // our server's MathML
      half.querySelector(".sources").replaceChildren(...equation.sources.map(sourceOf));
    });
  }

  show(film, moment) {
    this.last = [film, moment];
    if (!this.element.open) return;
    this.halves.forEach((half, which) => {
      const reel = film.reels[which];
      const { calls, sizes } = moment.stills[which];
      const step = half.querySelector(".step");
      const terms = half.querySelector("tbody");
      half.classList.toggle("before", !calls || !sizes);
      if (!calls || !sizes) {
        step.textContent = step.dataset.before;
        terms.replaceChildren();
        return;
      }
      const [t, s] = [reel.pane.levels[calls - 1], reel.pane.levels[calls]];
      step.textContent = fill(step.dataset.words, { calls, total: reel.total, t, s });
      terms.replaceChildren(
        ...reel.pane.equation.terms.map((term) => rowOf(term, term.values[calls - 1], sizes)),
      );
    });
  }
}

function rowOf({ letter, of, name }, coefficient, sizes) {
  const size = Math.abs(coefficient) * sizes[of];
  const row = document.createElement("tr");
  row.innerHTML = `<th scope="row">${letter} <span></span></th><td></td><td></td><td><i></i></td>`; // MathML
  const [head, number, rms, bar] = row.children;
  head.querySelector("span").textContent = name;
  number.textContent = rounded(coefficient);
  rms.textContent = rounded(size);
  bar.firstChild.style.width = `${Math.min(size / 1.5, 1) * 100}%`;
  return row;
}

function rounded(value) {
  return value.toFixed(4).replace("-", "−");
}

function sourceOf({ name, text, link }) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const code = document.createElement("pre");
  summary.textContent = name;
  code.textContent = text;
  code.tabIndex = 0;
  details.append(summary, code);
  if (link) {
    const anchor = document.createElement("a");
    Object.assign(anchor, { href: link, target: "_blank", rel: "noopener", textContent: name });
    details.append(anchor);
  }
  return details;
}
