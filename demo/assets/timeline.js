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

  // Marks the steps of both panes, and how far each has come in this moment.
  draw(film, moment) {
    const T = film.start.T;
    ["left", "right"].forEach((side, which) => {
      const { pane } = film.reels[which];
      const [top, bottom] = which === 0 ? [5, 12] : [20, 27];
      const marks = pane.levels.map(
        (level) => `M${((1 - level / T) * 1000).toFixed(1)} ${top}V${bottom}`,
      );
      const here = moment.stills[which].calls + 1;
      this.path(side, "passed", pane.sampler, marks.slice(0, here));
      this.path(side, "ahead", pane.sampler, marks.slice(here));
    });
    this.head.style.transform = `translateX(${((1 - moment.level / T) * 100).toFixed(2)}%)`;
  }

  path(side, part, sampler, marks) {
    const path = this.element.querySelector(`.ticks.${side}.${part}`);
    path.dataset.sampler = sampler;
    path.setAttribute("d", marks.join(""));
  }
}
