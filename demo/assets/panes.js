// The two panes: pictures on canvases, the words around them, and one face enlarged in both.

const GAP = 2; // pixels between faces, before enlarging
const FULL = 384; // pixels of a canvas, about: pictures are enlarged by whole numbers

class Pane {
  constructor(element, enlarge) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.faces = element.querySelector(".faces");
    this.faces.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) enlarge(Number(button.dataset.face));
    });
  }

  open(pane) {
    this.element.dataset.sampler = pane.sampler;
    this.element.querySelector(".title").textContent = pane.title;
    this.element.querySelector(".how").textContent = pane.how;
  }

  // Transparent buttons over the faces; over an enlarged one, the way back.
  offer(faces, zoom) {
    const names = this.names(faces, zoom);
    const there = [...this.faces.children].map((button) => button.getAttribute("aria-label"));
    if (there.join() === names.join()) return;
    this.faces.style.setProperty("--side", Math.round(Math.sqrt(names.length)) || 1);
    this.faces.replaceChildren(
      ...names.map((name, face) => {
        const button = document.createElement("button");
        button.type = "button";
        button.dataset.face = face;
        button.setAttribute("aria-label", name);
        button.tabIndex = this.faces.dataset.twin ? -1 : 0;
        return button;
      }),
    );
  }

  names(faces, zoom) {
    const { enlarge, reduce } = this.faces.dataset;
    if (faces === 1) return [];
    if (zoom !== null) return [reduce];
    return Array.from({ length: faces }, (_, face) => fill(enlarge, { face: face + 1 }));
  }

  // Copies the faces of a decoded picture into the canvas; without one, the canvas is blank.
  paint(bitmap, { faces, size }, zoom) {
    const side = zoom === null ? Math.round(Math.sqrt(faces)) : 1;
    const scale = Math.max(1, Math.round(FULL / (side * size)));
    const step = (size + GAP) * scale;
    const full = side * step - GAP * scale;
    if (this.canvas.width !== full) this.canvas.width = this.canvas.height = full;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = this.smooth;
    if (!bitmap) return context.clearRect(0, 0, full, full);
    const columns = bitmap.width / size;
    for (let place = 0; place < side * side; place++) {
      const face = zoom ?? place;
      const from = [(face % columns) * size, Math.floor(face / columns) * size, size, size];
      const to = [
        (place % side) * step,
        Math.floor(place / side) * step,
        size * scale,
        size * scale,
      ];
      context.drawImage(bitmap, ...from, ...to);
    }
  }

  get smooth() {
    return document.body.classList.contains("smooth");
  }

  // The words that change with every still.
  label(values, blank) {
    this.element.classList.toggle("blank", blank);
    for (const line of this.element.querySelectorAll("[data-words]")) {
      const text = fill(line.dataset.words, values);
      if (line.matches("canvas")) line.setAttribute("aria-label", text);
      else line.textContent = text;
    }
  }
}
