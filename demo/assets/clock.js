// What both panes show together: moments, in order. One clock counts calls of the network, the
// other the noise that is left. A moment's `mark` grows along the film, whichever clock runs.

const CLOCKS = {
  calls: {
    moments(film, stills) {
      const marks = new Set(stills.flat().map((still) => still.calls));
      const leader = film.longest;
      return [...marks].sort(ascending).map((mark) => {
        const shown = stills.map((those) => those.findLast((still) => still.calls <= mark));
        return { mark, stills: shown, level: film.reels[leader].level(shown[leader]) };
      });
    },
    level: (film, mark) => leading(film)[mark],
    mark: (film, level) => leading(film).findLastIndex((one) => one >= level),
    markOf: (_film, _which, calls) => calls,
  },

  noise: {
    moments(film, stills) {
      const levels = stills.map((those, which) =>
        those.map((still) => film.reels[which].level(still)),
      );
      const reached = Math.max(...levels.map((those) => those.at(-1)));
      const marks = new Set(levels.flat().filter((level) => level >= reached));
      return [...marks]
        .sort(ascending)
        .reverse()
        .map((level) => {
          const shown = levels.map((those, which) => stills[which][nearest(those, level)]);
          return { mark: film.start.T - level, stills: shown, level };
        });
    },
    level: (film, mark) => film.start.T - mark,
    mark: (film, level) => film.start.T - level,
    markOf: (film, which, calls) => film.start.T - film.reels[which].pane.levels[calls],
  },
};

// All moments that are known, or those that have a picture for the lens.
function momentsOf(film, clock, lens) {
  const stills = film?.reels.map((reel) => (lens ? reel.through(lens) : reel.stills)) ?? [];
  const some = stills.length && stills.every((those) => those.length);
  return some ? CLOCKS[clock].moments(film, stills) : [];
}

// How many calls of the longest pane lie between two moments: what a second of playing is made of.
function callsBetween(film, before, after) {
  const share = (before.level - after.level) / film.start.T;
  return Math.max(share * film.reels[film.longest].total, 0.5);
}

const leading = (film) => film.reels[film.longest].pane.levels;

const ascending = (one, other) => one - other;

// The index of the nearest of falling levels; of two, the noisier one.
function nearest(levels, level) {
  const distances = levels.map((one) => Math.abs(one - level));
  return distances.indexOf(Math.min(...distances));
}
