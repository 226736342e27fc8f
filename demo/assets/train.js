// The Train tab: asks the server how the runs are, shows the one that is watched, and starts,
// stops and continues those of this browser. Gradio calls this with `element` and `server` in
// scope. Everything shown comes from the server: a reload shows the same.

const SOON = 1000; // milliseconds between two looks at a run that goes on,
const LATER = 5000; // and otherwise
const SURE = 4000; // milliseconds in which a second click deletes
const WATCHED = "cartoon-run";

const root = element.querySelector(".train");
const find = (selector) => root.querySelector(selector);
const form = find("form.choices");
const lost = find(".lost").textContent; // of what is tried again
const { unanswered } = find(".lost").dataset; // of what a click asked for

let watched = stored("sessionStorage", WATCHED); // the name of the run on show, or coming
let told = null; // of the one that the facts and the buttons are about
let known = null; // the server's last answer
let looks = 0; // only the answer to the latest counts
let starting = false;
let sure = null; // the timer of a click on Delete that waits for a second one
let timer = null;
let asked = 0; // estimates: only the latest counts

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
  setAside(find(".start"), starting || Boolean(known.going));
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
  setAside(button, true);
  try {
    return await ask();
  } finally {
    setAside(button, false);
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
