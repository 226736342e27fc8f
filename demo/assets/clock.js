// What both panes show together: moments, in order. One clock counts calls of the network, the
// other the noise that is left. A moment's `mark` grows along the film, whichever clock runs.

const CLOCKS = {
  calls(film) {
    const marks = new Set(film.reels.flatMap((reel) => reel.stills.map((still) => still.calls)));
    const leader = film.reels[film.longest];
    return [...marks]
      .sort((one, other) => one - other)
      .map((mark) => {
        const stills = film.reels.map((reel) => reel.at(mark));
        return { mark, stills, level: leader.level(leader.at(mark)) };
      });
  },

  noise(film) {
    const reached = Math.max(...film.reels.map((reel) => reel.level(reel.stills.at(-1))));
    const levels = new Set(
      film.reels.flatMap((reel) => reel.stills.map((still) => reel.level(still))),
    );
    return [...levels]
      .filter((level) => level >= reached)
      .sort((one, other) => other - one)
      .map((level) => {
        const stills = film.reels.map((reel) => reel.nearest(level));
        return { mark: film.start.T - level, stills, level };
      });
  },
};

function momentsOf(film, clock) {
  return film && !film.empty ? CLOCKS[clock](film) : [];
}

// How many calls of the longest pane lie between two moments: what a second of playing is made of.
function callsBetween(film, before, after) {
  const share = (before.level - after.level) / film.start.T;
  return Math.max(share * film.reels[film.longest].total, 0.5);
}
