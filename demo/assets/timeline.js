// The noise axis with the steps of both samplers: all noise on the left, the picture right.

class Timeline {
  constructor(element, seek) {
    this.element = element;
    this.head = element.querySelector(".head");
    const drag = (event) => {
      const box = element.getBoundingClientRect();
      seek(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    };
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      drag(event);
    });
    element.addEventListener("pointermove", (event) => {
      if (element.hasPointerCapture(event.pointerId)) drag(event);
    });
  }

  // Marks the steps of both panes, and how far each has come in this frame.
  draw(film, frame) {
    const T = film.start.T;
    ["ddpm", "ddim"].forEach((name, pane) => {
      const [top, bottom] = pane === 0 ? [5, 12] : [20, 27];
      const marks = film.start.panes[pane].levels.map(
        (level) => `M${((1 - level / T) * 1000).toFixed(1)} ${top}V${bottom}`,
      );
      const here = frame.calls[pane] + 1;
      this.path(name, "passed").setAttribute("d", marks.slice(0, here).join(""));
      this.path(name, "ahead").setAttribute("d", marks.slice(here).join(""));
    });
    const share = 1 - film.level(frame, film.longest) / T;
    this.head.style.left = `${(share * 100).toFixed(2)}%`;
  }

  path(name, part) {
    return this.element.querySelector(`.ticks.${name}.${part}`);
  }
}
