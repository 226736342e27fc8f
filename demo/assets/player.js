// Plays a film and moves in it; what is on show is the stage's business.

const CALLS_PER_SECOND = 25; // of the playback,
const LONGEST = 8000; // which takes at most so many milliseconds
const SPEEDS = [1, 2, 0.5];

let playing = null; // a token of the playback that is going on
let speed = 0;

function play() {
  const all = moments();
  if (!all.length) return;
  following = false;
  markPlaying(find(".play"), true);
  const position = index(all);
  playOn(all[position >= all.length - 1 ? 0 : position + 1]);
}

// Shows one moment after the other, each for as long as the calls that it stands for.
async function playOn(moment) {
  const mine = {};
  playing = mine;
  const before = moments().findLast((one) => one.mark < moment.mark) ?? moment;
  const total = film.reels[film.longest].total;
  const pace = Math.min(1000 / CALLS_PER_SECOND, LONGEST / total) / SPEEDS[speed];
  const rest = new Promise((resolve) =>
    setTimeout(resolve, pace * callsBetween(film, before, moment)),
  );
  await show(moment);
  await rest;
  if (playing !== mine) return;
  const next = moments().find((one) => one.mark > moment.mark);
  if (next) playOn(next);
  else pause(stage.dataset.state === "running");
}

function pause(thenFollow = false) {
  playing = null;
  following = thenFollow;
  markPlaying(find(".play"), false);
}

function step(by) {
  const all = moments();
  if (!all.length) return;
  pause();
  show(all[Math.min(Math.max(index(all) + by, 0), all.length - 1)]);
}

const toggle = () => (playing ? pause() : play());

function hasten(button) {
  speed = (speed + 1) % SPEEDS.length;
  const text = SPEEDS[speed] === 0.5 ? "½×" : `${SPEEDS[speed]}×`;
  button.textContent = text;
  button.setAttribute("aria-label", `${button.dataset.label} ${text}`);
}
