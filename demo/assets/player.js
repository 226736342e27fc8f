// Plays a film and moves in it; what is on show is the stage's business.

const CALLS_PER_SECOND = 25; // of the playback,
const LONGEST = 8000; // which takes at most so many milliseconds
const SPEEDS = [1, 2, 0.5];

let playing = null; // a token of the playback that is going on
let speed = 0;

async function play() {
  askAgain();
  if (!moments().length) return;
  following = false;
  markPlaying(find(".play"), true);
  const mine = {};
  playing = mine;
  const moment = (await momentAfter()) ?? moments()[0];
  if (playing === mine) playOn(moment);
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
  await go(moment.mark);
  await rest;
  if (playing !== mine) return;
  const next = await momentAfter();
  if (playing !== mine) return;
  if (next) playOn(next);
  else pause(stage.dataset.state === "running");
}

// The moment after the one on show, as soon as it is here.
async function momentAfter() {
  const after = () => moments().find((one) => one.mark > place);
  return after() ?? fetched.then(after);
}

function pause(thenFollow = false) {
  playing = null;
  following = thenFollow;
  markPlaying(find(".play"), false);
}

function step(by) {
  askAgain();
  const [all, known] = [moments(), momentsOf(film, clock)];
  if (!known.length) return;
  pause();
  const moment = Number.isFinite(by) ? all[index(all) + by] : known.at(by < 0 ? 0 : -1);
  if (moment) go(moment.mark);
}

const toggle = () => (playing ? pause() : play());

function hasten(button) {
  speed = (speed + 1) % SPEEDS.length;
  const text = SPEEDS[speed] === 0.5 ? "½×" : `${SPEEDS[speed]}×`;
  button.textContent = text;
  button.setAttribute("aria-label", `${button.dataset.label} ${text}`);
}
