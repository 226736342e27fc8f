// The stage: shows the stills that arrive, keeps them, and plays them back without the server.
// Gradio calls this with `element`, `props`, `watch`, `trigger` and `server` in scope.

const FILLED_AT_ONCE = 24; // stills
const FILLED_AHEAD = 48_000_000; // bytes of pictures that are fetched before anybody asks
const QUARTER = 25; // percent between two words to those who listen

const stage = element.querySelector(".stage");
const find = (selector) => stage.querySelector(selector);
const words = find(".words");
const timeline = new Timeline(find(".timeline"), (share) => {
  const level = (1 - share) * film?.start.T;
  const all = momentsOf(film, clock);
  if (!all.length) return;
  const distance = (moment) => Math.abs(moment.level - level);
  pause();
  go(all.reduce((best, one) => (distance(one) < distance(best) ? one : best)).mark);
});
const panes = [...stage.querySelectorAll(".pane")].map(
  (pane) => new Pane(pane, (face) => enlarge(zoom === null ? face : null)),
);

let film = null;
let lens = LENSES[0];
let clock = "calls";
let zoom = null; // the face that is enlarged
let next; // which one is to be, as soon as the next run begins; undefined: as it is
let pressing = null; // a press of Run, till the server was heard of
let saying = ""; // what the example that was pressed says, as soon as its run begins
let answers = 0; // of the server, to a press of Run
let stopped = null; // the run that was stopped last: what still comes of it is not shown
let coming = null; // the newest message of a run that has no picture yet; till then the film stays
let receipt = null; // of the newest frame: the server waits for those it asks for, and one may be lost
let place = 0; // the mark that was asked for; the moment on show is the nearest before it
let here = null; // the moment on show
let wanted = null; // the moment that is being decoded
let following = false; // whether the newest moment is shown as it arrives
let filling = null; // a token of the fetching that is going on
let unanswered = false; // whether the server was asked for stills in vain
let complaint = ""; // what was said of that, in place of
let outcome = ["", false]; // what was said at the end of the run
let fetched = Promise.resolve(); // when all that there is to see through this lens is here
let equation = null;

watch("value", () => receive(props.value));
whenThere(["#lens", "#more-button", "#open", "#examples", ".equation"]).then(connect);

function receive(message) {
  if (message?.run && message.run === stopped) {
    if (goesOn(message)) server.halt({ run: stopped }); // it did not hear the first
    return;
  }
  if (message?.type === "heard") answers++;
  if (message?.type === "beat" && message.run === receipt?.run) server.ack(receipt);
  if (message?.type === "aside" && message.run === film?.start.run) say(message.words);
  else if (["aside", "start"].includes(message?.type)) expect(message);
  if (message?.type === "frame") {
    if (message.run === coming?.run) begin(coming);
    if (message.run === film?.start.run) add(message);
  }
  if (message?.type === "problem") {
    answers++;
    finish(message.words, true);
  }
}

// One press at a time: what is asked for meanwhile would be drawn with the settings of another.
// `says` is what an example says of what it draws.
function press(how, says = "") {
  if (pressing || stage.dataset.state === "running") return;
  saying = says;
  pressing = how().finally(() => {
    pressing = null;
  });
}

const run = () => heard(() => document.querySelector("#run").click());
const replay = () => heard(() => trigger("replay", { token }));

async function heard(ask) {
  const before = answers;
  if (!(await insist(ask, () => answers > before))) say(silence(words.dataset), true);
}

function stop() {
  if (stage.dataset.state !== "running") return;
  stopped = coming?.run ?? film.start.run;
  server.halt({ run: stopped });
  finish(words.dataset.stopped);
}

// Plays a run that was recorded with the shipped weights, unless the visitor was quicker.
function showRecorded(recorded) {
  if (film || coming || !recorded) return;
  if (!cartoon.areDefaults(["model", "asked", "finish"])) return; // the line above would not fit
  open(recorded.start);
  for (const still of recorded.stills) film.add(still);
  const badge = find(".badge");
  badge.textContent = fill(badge.dataset.words, recorded.start);
  badge.hidden = false;
  setState("recorded");
  invite();
  go(newest());
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
}

// Before the first run: what Run would do.
function invite() {
  const { hint, hintRecorded } = words.dataset;
  if (![hint, hintRecorded].includes(words.textContent)) return;
  const same = stage.dataset.state === "recorded" && cartoon.areDefaults();
  say(same ? hintRecorded : hint);
}

function expect(message) {
  if (message.run !== coming?.run) answers++;
  coming = message;
  setState("running");
  say(message.words);
}

function begin(start) {
  pause();
  find(".badge").hidden = true;
  open(start);
  document.querySelector("#examples .says").textContent = saying;
  coming = null;
  following = true;
  if (lens !== LENSES[0]) server.look({ run: start.run, lens });
}

function open(start) {
  film = new Film(start);
  place = 0;
  here = wanted = filling = null;
  unanswered = false;
  if (next !== undefined) zoom = next;
  next = undefined;
  if (zoom !== null && zoom >= start.faces) zoom = null;
  panes.forEach((pane, which) => {
    pane.open(start.panes[which]);
    pane.offer(start.faces, zoom);
  });
  equation?.open(film);
}

function add(message) {
  for (const still of message.stills) film.add(still);
  const shown = following ? go(newest()) : Promise.resolve(refresh());
  const mine = { run: message.run, number: message.number };
  receipt = mine;
  if (message.receipt) shown.then(() => server.ack(mine));
  announce();
  if (message.done) finish(message.words);
  else if (stage.dataset.state !== "running") setState("running"); // it is not over after all
}

function finish(text, isProblem = false) {
  coming = null;
  setState(film && !film.empty ? "finished" : "empty");
  outcome = [text, isProblem];
  say(...outcome);
  refresh();
  if (film && !film.empty) fillUp();
}

function setState(state) {
  const focused = document.activeElement?.closest?.("#run, #stop");
  stage.dataset.state = state;
  document.body.classList.toggle("running", state === "running");
  if (focused) document.querySelector(state === "running" ? "#stop" : "#run")?.focus();
}

function say(text, isProblem = false) {
  write(words, text);
  words.classList.toggle("problem", isProblem);
}

// Now and then, to those who do not see the panes.
function announce() {
  const reel = film.reels[film.longest];
  const percent = Math.floor(((reel.reached / reel.total) * 100) / QUARTER) * QUARTER;
  const line = find(".progress");
  write(line, percent ? fill(line.dataset.words, { percent }) : "");
}

// Moments.

const moments = () => momentsOf(film, clock, lens);
const newest = () => momentsOf(film, clock).at(-1)?.mark ?? 0;

// Where among all moments the one that was asked for, or the last before it, is.
function index(all) {
  return Math.max(
    all.findLastIndex((moment) => moment.mark <= place),
    0,
  );
}

// What was asked for in vain is asked for again when somebody wants to see it.
function askAgain() {
  if (unanswered) fillUp(true);
}

async function go(mark) {
  place = mark;
  await showAgain();
}

async function showAgain() {
  const all = moments();
  if (all.length) await show({ ...all[index(all)] });
}

// Shows a moment; while one is being decoded only the latest wish counts.
async function show(moment) {
  wanted = moment;
  const [reel, through] = [film, lens];
  const bitmaps = await Promise.all(moment.stills.map((still) => reel.decode(still, through)));
  await new Promise(requestAnimationFrame);
  if (reel !== film || wanted !== moment || through !== lens) return;
  here = moment;
  panes.forEach((pane, which) => {
    pane.paint(bitmaps[which], film.start, zoom);
    pane.label(describe(moment, which), lens !== "x" && !moment.stills[which].calls);
  });
  timeline.draw(film, moment);
  equation?.show(film, moment);
  refresh();
}

function describe(moment, which) {
  const [reel, still] = [film.reels[which], moment.stills[which]];
  const { face, faces } = find(".progress").dataset;
  const one = zoom === null ? film.start.faces === 1 && 0 : zoom;
  return {
    calls: String(still.calls).padStart(String(reel.total).length, "\u2007"), // a digit's space
    total: reel.total,
    noise: Math.round(reel.noise(still) * 100),
    seconds: still.seconds.toFixed(1),
    subject: one === false ? fill(faces, film.start) : fill(face, { face: one + 1 }),
    sampler: reel.pane.title,
    lens: document.querySelector(`#lens option[value=${lens}]`)?.textContent ?? lens,
  };
}

// Brings buttons and slider in line with the state.
function refresh() {
  const all = moments();
  const position = index(all);
  for (const name of ["back", "play", "forward"]) find(`.${name}`).disabled = !all.length;
  setAside(find(".back"), position === 0);
  setAside(find(".forward"), position >= all.length - 1);
  const idle = all.length && stage.dataset.state !== "running";
  for (const button of stage.querySelectorAll(".keep [data-kind]")) {
    button.disabled = !idle;
    setAside(button, saving);
  }
  const slider = timeline.element;
  slider.setAttribute("aria-disabled", String(!all.length));
  if (!here) return;
  slider.setAttribute("aria-valuemax", all.length - 1);
  slider.setAttribute("aria-valuenow", position);
  const text = fill(slider.dataset.words, describe(here, film.longest));
  slider.setAttribute("aria-valuetext", text);
}

// Lens, clock and enlarged face: other looks at the same film.

function look(through) {
  lens = through;
  if (film && !coming && stage.dataset.state === "running") {
    server.look({ run: film.start.run, lens });
  }
  showAgain();
  if (film && !film.empty) fillUp(true);
}

function tell(by) {
  if (film) place = CLOCKS[by].mark(film, CLOCKS[clock].level(film, place));
  clock = by;
  showAgain();
}

function enlarge(face) {
  const focused = stage.contains(document.activeElement);
  zoom = face;
  for (const pane of panes) pane.offer(film.start.faces, zoom);
  if (focused) panes[0].faces.querySelector("button")?.focus();
  showAgain();
}

// Fetches what the browser lacks: first through this lens, near the playhead; then the others.
// Whoever `asked` for it is told when it does not come.
async function fillUp(asked = false) {
  const mine = { asked };
  filling = mine;
  unanswered = false;
  const others = LENSES.filter((one) => one !== lens);
  fetched = fetchAll(lens, mine);
  let whole = await fetched;
  for (const other of others) whole = whole && (await fetchAll(other, mine, FILLED_AHEAD));
}

// Returns whether all of it has come.
async function fetchAll(through, mine, mostBytes = Infinity) {
  const reel = film;
  for (;;) {
    const lacking = lackingNear(through);
    if (!lacking.length || heldBytes() > mostBytes) return true;
    const wish = { run: reel.start.run, lens: through, stills: lacking };
    const filled = await answered(server.fill(wish), words.dataset.lost);
    if (filling !== mine || film !== reel) return false;
    if (!filled.stills?.length) {
      unanswered = Boolean(filled.problem);
      if (through === lens && mine.asked) complain(filled.words ?? filled.problem);
      return false;
    }
    if (complaint && words.textContent === complaint) say(...outcome);
    complaint = "";
    for (const still of filled.stills) film.add(still);
    if (through === lens && !playing) showAgain();
  }
}

function complain(told) {
  if (!told || isBroken()) return;
  complaint = told;
  say(told, true);
}

function lackingNear(through) {
  const distance = ([which, calls]) => Math.abs(CLOCKS[clock].markOf(film, which, calls) - place);
  return film.reels
    .flatMap((reel, which) => reel.lacking(through).map((calls) => [which, calls]))
    .sort((one, other) => distance(one) - distance(other))
    .slice(0, FILLED_AT_ONCE);
}

function heldBytes() {
  const pictures = film.reels.flatMap((reel) =>
    reel.stills.flatMap((still) => Object.values(still.pictures)),
  );
  return pictures.reduce((sum, picture) => sum + picture.size, 0);
}

// Wiring.

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
find(".link").addEventListener("click", share);
find(".replay").addEventListener("click", () => press(replay));
find(".keep").addEventListener("click", (event) => {
  if (event.target.dataset.kind && !saving) save(event.target.dataset.kind);
});
find(".clock").addEventListener("change", (event) => tell(event.target.value));
find(".speed").addEventListener("click", (event) => hasten(event.currentTarget));

const onScreen = () => stage.isConnected && stage.offsetParent !== null;

// Keys work wherever no other control has a use for them, as long as the stage is on screen.
document.addEventListener("keydown", (event) => {
  const mine = event.target === timeline.element || event.target === document.body;
  if (!onScreen() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && zoom !== null) return enlarge(null);
  if (!mine || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// Gradio hears what this script presses, and never a visitor: it would drop what comes too soon.
document.addEventListener(
  "click",
  (event) => {
    if (!event.isTrusted || !event.target.closest("#run")) return;
    event.stopPropagation();
    press(run);
  },
  { capture: true },
);
document.addEventListener("click", (event) => {
  if (event.target.closest("#stop")) stop();
});
document.addEventListener("keydown", (event) => {
  const isField = event.target.matches?.(":is(#controls, #more) .field input");
  if (isField && onScreen() && event.key === "Enter" && !event.isComposing) press(run);
});

// The other parts of the screen, which Gradio may lay out a moment later.
function connect([select, more, file, , drawer]) {
  equation = new Equation(drawer);
  if (film) equation.open(film);
  if (here) equation.show(film, here);
  select.addEventListener("change", () => look(select.value));
  more.addEventListener("click", () => {
    const isOpen = document.body.classList.toggle("more");
    more.setAttribute("aria-expanded", String(isOpen));
  });
  file.addEventListener("change", () => {
    if (file.files.length) give(file.files[0]);
    file.value = "";
  });
  document.querySelector("#reset").addEventListener("click", () => setFields({}));
  document.querySelector(".setup .choice").addEventListener("change", (event) => {
    document.body.classList.toggle("smooth", event.target.value === "smooth");
    showAgain();
  });
  document.addEventListener("compare", ({ detail }) => compare(detail));
  document.addEventListener("broken", () => {
    if (stage.dataset.state === "running") finish(silence(words.dataset), true);
  });
  onDrop(onScreen, give, (isOver) => {
    find(".drop").hidden = !isOver;
  });
  Promise.all([server.opening(), cartoon.filled]).then(([recorded]) => showRecorded(recorded));
  cartoon.follow(invite);
  server.examples().then(offerExamples);
}

async function whenThere(selectors) {
  for (;;) {
    const found = selectors.map((selector) => document.querySelector(selector));
    if (found.every(Boolean)) return found;
    await new Promise(requestAnimationFrame);
  }
}
