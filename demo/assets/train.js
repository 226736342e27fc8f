// The Train tab: asks the server how the runs are, shows the one that is watched, and starts,
// stops and continues those of this browser. Gradio calls this with `element` and `server` in
// scope. Everything shown comes from the server: a reload shows the same.

const SOON = 1000; // milliseconds between two looks at a run that goes on,
const LATER = 5000; // and otherwise
const FRAMES = 6; // previews per second of the time-lapse
const AT_ONCE = 6; // uploads
const SENDINGS = 4; // of one file, before all are given up
const PAUSE = 500; // milliseconds after the first of them, and so many more after every next
const REFUSALS = [413, 507]; // answers to an upload that would be the same again
const NAMED = 40; // letters of a file's name, its suffix among them, that the server is told
const SURE = 4000; // milliseconds in which a second click deletes
const QUARTER = 25; // percent of an upload between two words to those who listen
const OWNER = "cartoon-owner";
const OPERATOR = "cartoon-operator";
const WATCHED = "cartoon-run";

const root = element.querySelector(".train");
const find = (selector) => root.querySelector(selector);
const form = find("form.choices");
const lost = find(".lost").textContent; // of what is tried again
const { unanswered } = find(".lost").dataset; // of what a click asked for
const keys = { owner: name(), operator: operator() };

let watched = stored("sessionStorage", WATCHED); // the name of the run on show, or coming
let told = null; // of the one that the facts and the buttons are about
let known = null; // the server's last answer
let looks = 0; // only the answer to the latest counts
let shown = null; // [images, seconds, run] of the sheet on show, or coming
let wanted = null; // of the one that should be
let fetching = false;
let following = true; // whether the newest sheet is shown as it comes
let playing = null;
let upload_ = null; // the token of this visitor's pictures
let unread = null; // those that were sent, and that the server had no time to read
let sending = 0; // uploads: only the latest counts
let reading = false; // whether one is on its way
let starting = false;
let sure = null; // the timer of a click on Delete that waits for a second one
let timer = null;
let asked = 0; // estimates: only the latest counts

const sheets = new Map(); // "run images" to a promise of a picture

// This browser's name for itself: who started a run may stop it.
function name() {
  const kept = stored("localStorage", OWNER) || chance();
  store("localStorage", OWNER, kept);
  return kept;
}

// The operator comes with a key in the address. Anybody can send a link: the key is kept apart
// from the browser's name, and not for good.
function operator() {
  const given = new URLSearchParams(location.search).get("operator");
  if (given) store("sessionStorage", OPERATOR, given);
  return given || stored("sessionStorage", OPERATOR);
}

function chance() {
  return [...crypto.getRandomValues(new Uint8Array(24))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

const visible = () => document.body.dataset.tab === "train" && !document.hidden;

async function look() {
  clearTimeout(timer);
  const mine = ++looks;
  const answer = await answered(server.look({ ...keys, run: visible() ? watched : null }), lost);
  if (mine !== looks) return;
  find(".lost").hidden = !answer.problem;
  if (!answer.problem) known = answer;
  timer = setTimeout(look, known?.going && visible() ? SOON : LATER);
  if (!answer.problem) tell();
}

// Brings everything in line with the last answer.
function tell() {
  pill(known.going);
  root.dataset.state = known.going ? "going" : "idle";
  allow(find(".start"), !starting && !known.going);
  occupied();
  if (!watched && known.going) watch_(known.going.name);
  if (watched && !known.runs.some((run) => run.name === watched)) watch_(null);
  list(known.runs);
  // Unless the tab is on show, the answer tells nothing of the run that stays there.
  const article = find("article.run");
  const focused = article.contains(document.activeElement);
  if (known.run || !watched) article.hidden = !known.run;
  if (focused && article.hidden) (find(".runs li button") ?? find(".start")).focus();
  if (known.run) details(known.run);
}

// Beside the button: for how long the machine is taken; then, what it would do. Measuring that
// takes it for seconds, so pages that nobody looks at do not ask.
function occupied() {
  const words = find(".estimate .words");
  const { busy } = words.dataset;
  if (known.going && !(busy && words.textContent === known.busy)) say(known.busy, true);
  if (!known.going && busy && visible()) estimate();
}

function pill(going) {
  const badge = document.querySelector("#pill");
  if (!badge) return;
  badge.hidden = !going;
  write(badge, going ? `● ${going.percent} %` : "");
}

function watch_(run) {
  if (run !== watched) clear();
  watched = run;
  pause(true);
  disarm();
  store("sessionStorage", WATCHED, run);
  if (known) known.run = null;
  look();
}

// Nothing of one run stays beside the facts of another.
function clear() {
  const canvas = find(".sheet canvas");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  delete canvas.dataset.images;
  position("");
  find(".refusal").textContent = "";
  told = shown = wanted = null;
}

function details(run) {
  told = run.name;
  write(find(".facts .title"), `${run.title}, ${run.size} px`);
  write(find(".facts .state"), run.words);
  write(find(".percent"), `${run.percent} %`);
  find(".bar i").style.width = `${run.percent}%`;
  write(find("dd.images"), `${number(run.images)} / ${number(run.total)}`);
  write(find("dd.speed"), run.speed === null ? "–" : number(Math.round(run.speed)));
  write(find("dd.left"), run.left === null ? "–" : time(run.left));
  line(run.loss);
  write(find(".advice"), run.advice);
  write(find("article .problem"), run.problem);
  buttons(run);
  previews(run);
}

function buttons(run) {
  const mine = run.mine;
  const going = Boolean(known.going);
  const focused = find(".actions :focus");
  show(".stop", run.live && mine);
  show(".continue", !run.live && mine && !going && run.goes_on);
  const again = find(".continue");
  const { more, continue: same } = again.dataset;
  write(again, run.state === "finished" ? fill(more, { minutes: minutes() }) : same);
  show("article .compare", run.model);
  show("article .model", run.model);
  show("article .film", run.previews.length > 1);
  show(".delete", !run.live && mine);
  show(".foreign", !mine);
  if (focused?.hidden) find(".actions button:not([hidden])")?.focus();
}

function show(selector, whether) {
  find(selector).hidden = !whether;
}

// Whether a button can be pressed. One that were disabled would lose the keyboard that is on it.
function allow(button, whether) {
  button.setAttribute("aria-disabled", String(!whether));
}

root.addEventListener(
  "click",
  (event) => {
    if (!event.target.closest("[aria-disabled=true]")) return;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);

// One line, the loss downward on a logarithmic axis.
function line(points) {
  const path = find(".loss path");
  if (points.length < 2) {
    path.setAttribute("d", "");
    write(find(".loss .value"), "");
    return;
  }
  const logs = points.map(([, loss]) => Math.log(loss));
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const last = points[points.length - 1];
  const x = (images) => (400 * images) / last[0];
  const y = (log) => 86 - (82 * (log - low)) / (high - low || 1);
  const d = points.map(([images], i) => `${x(images).toFixed(1)} ${y(logs[i]).toFixed(1)}`);
  path.setAttribute("d", `M${d.join("L")}`);
  write(find(".loss .value"), last[1].toFixed(4));
}

// The time-lapse: a slider over all sheets of the run.
function previews(run) {
  const slider = find(".scrub");
  const last = run.previews.length - 1;
  slider.max = Math.max(last, 0);
  slider.disabled = last < 1;
  find(".lapse .play").disabled = last < 1;
  if (last < 0) return;
  if (following && !playing) slider.value = last;
  sheet(run, Number(slider.value));
}

// One sheet is fetched at a time, and painted even when a newer one has come meanwhile.
async function sheet(run, index) {
  wanted = [...run.previews[Math.min(index, run.previews.length - 1)], run.name];
  if (fetching) return;
  fetching = true;
  while (wanted && String(wanted) !== String(shown)) {
    const sought = wanted;
    const [images, seconds, name] = sought;
    const picture = await fetched(name, images).catch(() => null);
    if (picture && name === watched) {
      paint(picture, images, seconds);
      shown = sought;
    } else if (sought === wanted) break; // the next look asks for it again
  }
  fetching = false;
}

function paint(picture, images, seconds) {
  const canvas = find(".sheet canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  canvas.dataset.images = images;
  const { words } = find(".position").dataset;
  position(fill(words, { images: number(images), time: time(seconds) }));
}

// What the sheet is of: under it, and what the slider says to those who listen.
function position(text) {
  write(find(".position"), text);
  find(".scrub").setAttribute("aria-valuetext", text);
}

function fetched(run, images) {
  const key = `${run} ${images}`;
  if (!sheets.has(key)) {
    const coming = decoded(run, images);
    coming.catch(() => sheets.delete(key));
    sheets.set(key, coming);
  }
  return sheets.get(key);
}

async function decoded(run, images) {
  const { uri, problem } = await answered(server.preview({ run, images }), lost);
  if (!uri) throw new Error(problem);
  const picture = new Image();
  picture.src = uri;
  await picture.decode();
  return picture;
}

function play() {
  const run = known?.run;
  if (!run) return;
  following = false;
  const slider = find(".scrub");
  if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
  markPlaying(find(".lapse .play"), true);
  const mine = {};
  playing = mine;
  const step = async () => {
    if (playing !== mine) return;
    if (!known.run) return pause(true); // nobody looks
    await sheet(known.run, Number(slider.value));
    await new Promise((resolve) => setTimeout(resolve, 1000 / FRAMES));
    if (playing !== mine) return;
    if (Number(slider.value) >= Number(slider.max)) return pause(true);
    slider.value = Number(slider.value) + 1;
    step();
  };
  step();
}

function pause(thenFollow = false) {
  playing = null;
  following = thenFollow;
  markPlaying(find(".lapse .play"), false);
}

// The list of runs; rows stay where they are, so that a click never misses.
function list(runs) {
  find(".runs .none").hidden = runs.length > 0;
  write(find(".runs .total"), known.total);
  const rows = find(".runs ol");
  const there = new Map([...rows.children].map((row) => [row.dataset.run, row]));
  runs.forEach((run, i) => {
    const row = there.get(run.name) ?? newRow(run.name);
    there.delete(run.name);
    if (rows.children[i] !== row) rows.insertBefore(row, rows.children[i] ?? null);
    const put = (part, text) => write(row.querySelector(part), text);
    put(".title", run.title);
    put(".what", `${run.size} px · ${number(run.images)} · ${time(run.seconds)}`);
    put(".state", run.live ? `${run.percent} %` : run.words);
    put(".bytes", `${(run.bytes / 1e6).toFixed(0)} MB`);
    row.querySelector("button").setAttribute("aria-current", String(run.name === watched));
    thumb(row.querySelector("canvas"), run);
  });
  for (const row of there.values()) row.remove();
}

function newRow(run) {
  const row = document.createElement("li");
  row.dataset.run = run;
  row.innerHTML =
    '<button type="button"><canvas></canvas><span class="title"></span>' +
    '<span class="what"></span><span class="state"></span><span class="bytes"></span></button>';
  row.firstChild.addEventListener("click", () => {
    watch_(run);
    root.scrollIntoView({ block: "start" });
  });
  return row;
}

// The first four faces of the newest sheet.
async function thumb(canvas, run) {
  if (run.preview === null || canvas.dataset.images === String(run.preview) || !visible()) return;
  canvas.dataset.images = run.preview;
  const picture = await fetched(run.name, run.preview).catch(() => null);
  if (!picture) {
    delete canvas.dataset.images; // the next look asks for it again
    return;
  }
  canvas.width = picture.width / 2;
  canvas.height = picture.height / 2;
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

// The three choices.
function wish() {
  const fields = Object.fromEntries(new FormData(form));
  return {
    ...keys,
    upload: upload_,
    pictures: fields.pictures,
    minutes: minutes(),
    begin: fields.begin,
    size: fields.size,
    network: fields.network,
    batch: fields.batch,
    rate: fields.rate,
    seed: fields.seed,
    flip: form.elements.flip.checked,
  };
}

function minutes() {
  const free = form.elements.free.value.trim();
  return free || form.querySelector("[name=minutes]:checked")?.value;
}

async function estimate() {
  const mine = ++asked;
  const words = find(".estimate .words");
  say(words.dataset.measuring);
  const answer = await answered(server.estimate(wish()), lost);
  if (mine !== asked) return;
  const again = answer.busy || answer.problem === lost;
  say(answer.words ?? answer.problem ?? "", again, Boolean(answer.problem));
  const picture = find(".estimate img");
  picture.hidden = !answer.picture;
  if (answer.picture) picture.src = answer.picture;
  find(".estimate .caption").textContent = answer.caption ?? "";
}

function say(text, busy = false, isProblem = false) {
  const words = find(".estimate .words");
  words.textContent = text;
  words.classList.toggle("problem", isProblem);
  if (busy) words.dataset.busy = "yes";
  else delete words.dataset.busy;
  find(".estimate img").hidden = true;
  find(".estimate .caption").textContent = "";
}

form.addEventListener("change", (event) => {
  const { name, value } = event.target;
  if (event.target.type === "file") return;
  if (name === "free") {
    for (const box of form.querySelectorAll("[name=minutes]")) {
      box.checked = !value.trim() && box.value === "5";
    }
  }
  if (name === "minutes") form.elements.free.value = "";
  if (name === "other") choose(event.target);
  find(".drop").hidden = form.elements.pictures.value !== "own";
  const shipped = form.elements.begin.value === "shipped";
  for (const field of ["size", "network"]) form.elements[field].disabled = shipped;
  const begun = shipped ? "shipped" : form.elements.network.value;
  for (const field of ["batch", "rate"]) {
    form.elements[field].placeholder = form.elements[field].dataset[begun];
  }
  estimate();
});

function choose(select) {
  const label = find("label.other");
  label.hidden = !select.value;
  const box = label.querySelector("input");
  box.value = select.value;
  label.querySelector("span").textContent = select.selectedOptions[0].textContent;
  if (select.value) box.checked = true;
  else if (box.checked) form.querySelector("[name=pictures]").checked = true;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  asked++; // an estimate that is on its way does not overwrite what comes of this
  const sought = wish();
  const isOwn = sought.pictures === "own";
  if (isOwn && reading) return say(find(".taken").dataset.reading, false, true);
  if (isOwn && unread) {
    await prepare(take.bind(null, unread));
    if (!upload_) return estimate();
    sought.upload = upload_;
  }
  starting = true;
  const answer = await once(find(".start"), () => answered(server.start(sought), unanswered));
  starting = false;
  if (answer.problem) return say(answer.problem, false, true);
  if (isOwn) {
    upload_ = null;
    took("");
  }
  watch_(answer.run);
});

find(".choose").addEventListener("click", () => find(".files").click());
find(".files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  if (files.length) await send(files);
});
for (const kind of ["dragover", "drop"]) {
  find(".pictures").addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    const own = form.querySelector("[value=own]");
    own.checked = true;
    own.dispatchEvent(new Event("change", { bubbles: true })); // as when it is clicked
    send([...event.dataTransfer.files]);
  });
}

const send = (files) =>
  prepare((wanted) => {
    const refused = refusal(files, find(".taken").dataset);
    return refused ? { problem: refused } : read(files, wanted);
  });

// Has pictures read, as `work` does it as long as they are wanted; those chosen before are not
// wanted any more, whatever comes of it.
async function prepare(work) {
  const mine = ++sending;
  upload_ = unread = null;
  reading = true;
  took("");
  const answer = await work(() => mine === sending);
  if (mine !== sending) return;
  sending++; // what is still on its way after a failure says nothing more
  reading = false;
  find(".reading").textContent = "";
  took(answer.problem ?? answer.words, Boolean(answer.problem));
  upload_ = answer.upload ?? null;
  unread = answer.later ? answer.files : null;
}

// What the server made of these files, which are sent as long as they are `wanted`.
async function read(files, wanted) {
  const count = find(".reading");
  const sent = new Array(files.length);
  let [next, done, problem] = [0, 0, ""];
  const goesOn = () => wanted() && !problem;
  const one = async () => {
    while (next < files.length && goesOn()) {
      const i = next++;
      count.textContent = fill(count.dataset.words, { done: i + 1, all: files.length });
      // Two that are the same under the same name would be one, and whoever has it read first
      // takes it away from the other.
      const answer = await insistently(new File([files[i]], chance()), goesOn);
      problem ||= answer.problem;
      if (!goesOn()) return;
      sent[i] = { path: inside(answer.path), name: files[i].name.slice(-NAMED) };
      announce(++done / files.length);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return goesOn() ? take(sent, wanted) : { problem };
}

// Sends a file again and again while that fails on the way: of thousands, some always do.
async function insistently(file, wanted) {
  for (let sendings = 1; wanted(); sendings++) {
    const answer = await sent_(file);
    if (answer) return answer;
    if (sendings === SENDINGS) break;
    await new Promise((resolve) => setTimeout(resolve, PAUSE * sendings));
  }
  return { problem: unanswered };
}

// The path of a file that was sent, or why the server refuses it; nothing when it was lost.
// Gradio's own `upload` would show what went wrong, in its own words, for every attempt.
async function sent_(file) {
  const body = new FormData();
  body.append("files", file);
  const { root, api_prefix } = window.gradio_config;
  // Behind a proxy, the server does not know its own address: only the path of it counts.
  const { pathname } = new URL(root || "/", location.href);
  const address = `${pathname.replace(/\/$/, "")}${api_prefix}/upload`;
  try {
    const answer = await fetch(address, { method: "POST", body });
    if (answer.ok) return { path: (await answer.json())[0], problem: "" };
    if (REFUSALS.includes(answer.status)) return { problem: await answer.text() };
  } catch {}
  return null;
}

// The end of a path that is in the folder of uploads: 20,000 whole ones are too large a question.
const inside = (path) => path.split(/[/\\]/).slice(-2).join("/");

// The server is asked until it has read them. What it makes of them waits for whoever asks again.
async function take(files, wanted) {
  for (;;) {
    const answer = await answered(server.take({ ...keys, files }), unanswered);
    if (answer.problem === unanswered) answer.later = true;
    if (answer.problem || !answer.later || !wanted()) return { files, ...answer };
    find(".reading").textContent = "";
    if (find(".taken").textContent !== answer.words) took(answer.words);
  }
}

// Now and then, to those who do not see the count.
function announce(share) {
  const line = find(".sent");
  const percent = Math.floor((share * 100) / QUARTER) * QUARTER;
  write(line, percent ? fill(line.dataset.words, { percent }) : "");
}

function took(text, isProblem = false) {
  const words = find(".taken");
  find(".sent").textContent = "";
  words.textContent = text;
  words.classList.toggle("problem", isProblem);
}

// Why these files are not even sent; nothing when they are.
function refusal(files, rules) {
  if (files.length > Number(rules.most)) return rules.tooMany;
  const big = files.find((file) => file.size > Number(rules.mostSent));
  if (big) return fill(rules.tooBig, { name: big.name.slice(-60) });
  const all = files.reduce((sum, file) => sum + file.size, 0);
  return all > Number(rules.mostBytes) ? rules.tooMuch : "";
}

// What one does with a run: with the one whose facts are shown, or with none.
const act = async (what, extra = {}) => {
  if (told !== watched) return {};
  const run = told;
  find(".refusal").textContent = "";
  const answer = await answered(server[what]({ run, ...keys, ...extra }), unanswered);
  if (answer.problem && run === watched) find(".refusal").textContent = answer.problem;
  if (!answer.problem) await look();
  return answer;
};

// What a button asks for, which it asks for only once at a time.
async function once(button, ask) {
  allow(button, false);
  try {
    return await ask();
  } finally {
    allow(button, true);
  }
}

find(".stop").addEventListener("click", () => act("stop"));
find(".continue").addEventListener("click", ({ currentTarget: button }) =>
  once(button, () => act("resume", { minutes: minutes() })),
);
find(".delete").addEventListener("click", ({ currentTarget: button }) => {
  if (told !== watched) return;
  if (sure) {
    disarm();
    act("remove");
    return;
  }
  button.textContent = button.dataset.really;
  sure = setTimeout(disarm, SURE);
});
function disarm() {
  clearTimeout(sure);
  sure = null;
  find(".delete").textContent = find(".delete").dataset.delete;
}
for (const what of ["model", "film"]) {
  find(`article .${what}`).addEventListener("click", ({ currentTarget: button }) =>
    once(button, async () => {
      const { name, uri } = await act(what);
      if (uri) await download(name, uri);
    }),
  );
}
find("article .compare").addEventListener("click", () => {
  if (told !== watched) return;
  const fields = { ...cartoon.now(), model: watched, asked: "" };
  document.dispatchEvent(new CustomEvent("compare", { detail: fields }));
});

find(".scrub").addEventListener("input", ({ target }) => {
  pause(Number(target.value) >= Number(target.max));
  if (known?.run) sheet(known.run, Number(target.value));
});
find(".lapse .play").addEventListener("click", () => (playing ? pause(true) : play()));

document.addEventListener("tab", arrive);
document.addEventListener("visibilitychange", () => document.hidden || look());
arrive();

// Measuring takes the machine for seconds: it waits until somebody comes to this tab.
async function arrive() {
  await look();
  if (visible() && !known?.going && !find(".estimate .words").textContent) estimate();
}

function number(value) {
  return value.toLocaleString("en-US");
}

function time(seconds) {
  const whole = Math.round(seconds);
  const [hours, rest] = [Math.floor(whole / 3600), whole % 3600];
  const two = (n) => String(n).padStart(2, "0");
  const short = `${Math.floor(rest / 60)}:${two(rest % 60)}`;
  return hours ? `${hours}:${two(Math.floor(rest / 60))}:${two(rest % 60)}` : short;
}
