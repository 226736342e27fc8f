// The stage: shows the frames that arrive, keeps them, and plays them back without the server.
// Gradio calls this with `element`, `props`, `watch` and `server` in scope.

const CALLS_PER_SECOND = 25; // of the playback,
const LONGEST = 8000; // which takes at most so many milliseconds
const SPEEDS = [1, 2, 0.5];
const GAP = 2; // pixels between faces, before enlarging

const stage = element.querySelector(".stage");
const find = (selector) => stage.querySelector(selector);
const panes = [...stage.querySelectorAll(".pane")];
const words = find(".words");
const timeline = new Timeline(find(".timeline"), (share) => {
  if (!film?.length) return;
  pause();
  show(film.nearest(share));
});

let film = null;
let position = 0; // of the frame on show
let wanted = 0; // of the frame that is being decoded
let playing = null; // a token of the playback that is going on
let following = false; // whether the newest frame is shown as it arrives
let speed = 0;

watch("value", () => receive(props.value));
server.film().then(showRecorded);

function receive(message) {
  if (message?.type === "start") begin(message);
  if (message?.type === "frame" && message.run === film?.start.run) add(message);
  if (message?.type === "aside" && message.run === film?.start.run) say(message.words);
  if (message?.type === "problem") finish(message.words, true);
  if (message?.type === "stopped" && stage.dataset.state === "running") {
    finish(words.dataset.stopped);
  }
}

// Plays a run that was recorded with the shipped weights, unless the visitor was quicker.
function showRecorded([start, ...frames]) {
  if (film || !start) return;
  film = new Film(start);
  frames.forEach((frame) => film.add(frame));
  const badge = find(".badge");
  badge.textContent = fill(badge.dataset.words, start);
  badge.hidden = false;
  setState("recorded");
  show(film.length - 1);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
}

function begin(message) {
  pause();
  find(".badge").hidden = true;
  film = new Film(message);
  following = true;
  setState("running");
  panes[1].querySelector(".how").textContent = message.how;
  say(fill(words.dataset.going, message));
}

function add(message) {
  if (!film.length) say(fill(words.dataset.going, film.start)); // the waiting is over
  film.add(message);
  const receipt = { run: message.run, number: message.number };
  const shown = following ? show(film.length - 1) : Promise.resolve(refresh());
  shown.then(() => server.ack(receipt));
  if (message.done) finish(message.words);
}

function finish(text, isProblem = false) {
  setState(film?.length ? "finished" : "empty");
  say(text, isProblem);
  refresh();
}

function setState(state) {
  const focused = document.activeElement?.closest?.("#run, #stop");
  stage.dataset.state = state;
  document.body.classList.toggle("running", state === "running");
  if (focused) document.querySelector(state === "running" ? "#stop" : "#run")?.focus();
}

function say(text, isProblem = false) {
  words.textContent = text;
  words.classList.toggle("problem", isProblem);
}

// Shows the frame at a position; while one is being decoded only the latest wish counts.
async function show(index) {
  wanted = index;
  const reel = film;
  const frame = reel.frames[index];
  const bitmaps = await reel.decode(frame);
  await new Promise(requestAnimationFrame);
  if (reel !== film || frame !== film.frames[wanted]) return;
  position = wanted;
  panes.forEach((pane, which) => {
    paint(pane.querySelector("canvas"), bitmaps[which]);
    label(pane, frame, which);
  });
  timeline.draw(film, frame);
  refresh();
}

// Copies a pane's faces into its canvas, a gap between them.
function paint(canvas, bitmap) {
  const { faces, size } = film.start;
  const side = Math.round(Math.sqrt(faces));
  const scale = Math.max(1, Math.round(384 / (side * size)));
  const tile = size * scale;
  const full = side * tile + (side - 1) * GAP * scale;
  if (canvas.width !== full) canvas.width = canvas.height = full;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const from = [column * size, row * size, size, size];
      const step = tile + GAP * scale;
      context.drawImage(bitmap, ...from, column * step, row * step, tile, tile);
    }
  }
}

function label(pane, frame, which) {
  const values = describe(frame, which);
  for (const line of pane.querySelectorAll("[data-words]")) {
    const text = fill(line.dataset.words, values);
    if (line.matches("canvas")) line.setAttribute("aria-label", text);
    else line.textContent = text;
  }
}

function describe(frame, which) {
  return {
    calls: frame.calls[which],
    total: film.total(which),
    noise: Math.round(film.noise(frame, which) * 100),
    seconds: frame.seconds[which].toFixed(1),
    faces: film.start.faces,
    sampler: panes[which].dataset.sampler,
  };
}

function fill(template, values) {
  return template.replace(/\[(\w+)\]/g, (whole, name) => values[name] ?? whole);
}

// Brings buttons and slider in line with the state.
function refresh() {
  const ready = Boolean(film?.length);
  find(".back").disabled = !ready || position === 0;
  find(".forward").disabled = !ready || position >= film.length - 1;
  find(".play").disabled = !ready;
  const slider = timeline.element;
  slider.setAttribute("aria-disabled", String(!ready));
  if (!ready || !film.frames[position]) return;
  slider.setAttribute("aria-valuemax", film.length - 1);
  slider.setAttribute("aria-valuenow", position);
  slider.setAttribute(
    "aria-valuetext",
    fill(slider.dataset.words, describe(film.frames[position], film.longest)),
  );
}

function play() {
  if (!film?.length) return;
  following = false;
  mark(true);
  playOn(position >= film.length - 1 ? 0 : position + 1);
}

// Shows one frame after the other, each for as long as the calls that it stands for.
async function playOn(index) {
  const pane = film.longest;
  const pace = Math.min(1000 / CALLS_PER_SECOND, LONGEST / film.total(pane)) / SPEEDS[speed];
  const calls = film.frames[index].calls[pane] - (film.frames[index - 1]?.calls[pane] ?? 0);
  const rest = new Promise((resolve) => setTimeout(resolve, pace * Math.max(calls, 1)));
  const mine = (playing = {});
  await show(index);
  await rest;
  if (playing !== mine) return;
  if (index < film.length - 1) playOn(index + 1);
  else pause(stage.dataset.state === "running");
}

function pause(thenFollow = false) {
  playing = null;
  following = thenFollow;
  mark(false);
}

function mark(isPlaying) {
  const button = find(".play");
  const name = isPlaying ? button.dataset.pause : button.dataset.play;
  button.classList.toggle("playing", isPlaying);
  button.setAttribute("aria-label", name);
  button.title = name;
}

function step(by) {
  if (!film?.length) return;
  pause();
  show(Math.min(Math.max(position + by, 0), film.length - 1));
}

const toggle = () => (playing ? pause() : play());
const keys = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  Home: () => step(-Infinity),
  End: () => step(Infinity),
  " ": toggle,
};

find(".back").addEventListener("click", () => step(-1));
find(".forward").addEventListener("click", () => step(1));
find(".play").addEventListener("click", toggle);
find(".speed").addEventListener("click", (event) => {
  speed = (speed + 1) % SPEEDS.length;
  const text = SPEEDS[speed] === 0.5 ? "½×" : SPEEDS[speed] + "×";
  event.currentTarget.textContent = text;
  event.currentTarget.setAttribute("aria-label", event.currentTarget.dataset.label + " " + text);
});
timeline.element.addEventListener("keydown", (event) => {
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
