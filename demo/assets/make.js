// The Make screen: wishes, faces on request, and one of them enlarged.
// Gradio calls this with `element`, `props`, `watch`, `trigger` and `server` in scope.

const KEPT = "cartoon-make";
const CALM = 1e6; // seeds that the dice throw are below this
const MOST = 128; // faces on show

const screen = element.querySelector(".make");
const find = (selector) => screen.querySelector(selector);
const form = find("form");
const told = find(".told");
const dialog = find("dialog");

const faces = []; // all that are on show
let sheet = null; // the newest of them, drawn together
let latest = null; // order: what it asks for, and what became of it
let coming = null; // the start of a run that has no picture yet
let ended = null; // the run that was ended on the server last
let receipt = null; // of the newest frame, which the server may have waited for in vain
let enlarged = null; // a face

watch("value", () => receive(props.value));
restore();
follow();
server.opening().then(showRecorded);

// Every message names the press of Make that it answers.
function receive(message) {
  if (!message?.press) return;
  if (message.press !== latest?.press || latest.stopped) {
    if (message.run !== ended || goesOn(message)) end(message.run);
    return;
  }
  latest.heard = true;
  latest.run ??= message.run;
  setState("running");
  if (message.type === "start") coming = message;
  if (message.type === "frame") {
    receipt = { run: message.run, number: message.number };
    draw(message);
  }
  if (message.type === "aside") say(message.words);
  if (message.type === "beat" && message.run === receipt?.run) server.ack(receipt);
  if (message.type === "problem") finish(message.words, true);
}

// Orders.

async function order(fields, more = false) {
  if (screen.dataset.state === "running") return;
  const mine = { press: (latest?.press ?? 0) + 1, fields, more, heard: false, stopped: false };
  latest = mine;
  setState("running");
  if (told.classList.contains("problem")) say("");
  const isSettled = await insist(
    () => trigger("order", { ...fields, press: mine.press }),
    () => mine.heard || mine.stopped,
  );
  if (!isSettled) finish(silence(told.dataset), true);
}

// As long as the run has no name, the first message that tells it ends the run.
function stop() {
  latest.stopped = true;
  end(latest.run);
  finish(told.dataset.stopped);
}

function end(run) {
  if (!run) return;
  ended = run;
  server.halt({ run });
}

function model() {
  return form.querySelector("[name=model]:checked")?.value ?? "";
}

function offered(name) {
  return form.querySelector(`.wishes[data-model="${CSS.escape(name)}"]`);
}

// An index for every attribute, a dash where anything will do.
function wishes() {
  const chosen = [...offered(model()).querySelectorAll("fieldset")].map(
    (fieldset) => fieldset.querySelector(":checked")?.value || "-",
  );
  return chosen.some((value) => value !== "-") ? chosen.join(".") : "";
}

const fieldsNow = () => ({
  seed: form.seed.value.trim(),
  model: model(),
  asked: wishes(),
  guidance: form.guidance.value.trim(),
  finish: form.finish.checked ? form.finish.value : "",
});

function begin() {
  if (!latest.more) clear();
  find(".badge").hidden = true;
  open(coming, latest.fields);
  say(coming.words);
  coming = null;
}

function open(start, fields) {
  const asked = fields.asked ? wordsOf(fields) : [];
  sheet = { start, fields, faces: [] };
  for (let place = 0; place < start.faces; place++) {
    const seed = String(BigInt(start.seed) + BigInt(place));
    const face = { sheet, place, seed, granted: null, words: "", figure: figure(asked) };
    face.figure.querySelector("button").addEventListener("click", () => enlarge(face));
    sheet.faces.push(face);
    faces.push(face);
    find(".faces").append(face.figure);
  }
}

function figure(asked) {
  const made = find("template").content.firstElementChild.cloneNode(true);
  const canvas = made.querySelector("canvas");
  canvas.width = canvas.height = sheet.start.size;
  // Reserved from the start, so that nothing moves when the ticks come.
  made.querySelector("ul").replaceChildren(...asked.map((name) => tick(name)));
  return made;
}

// The attributes that are asked for, as their legends name them.
function wordsOf({ model: name, asked }) {
  const legends = [...offered(name).querySelectorAll("legend")].map((one) => one.textContent);
  return asked.split(".").flatMap((index, i) => (index === "-" ? [] : [legends[i]]));
}

function tick(name, right = null) {
  const item = document.createElement("li");
  item.textContent = name;
  if (right !== null) item.className = right ? "yes" : "no";
  return item;
}

// What was on show stays until there is a picture to take its place.
async function draw(message) {
  const picture = message.stills[0]?.images.x;
  const bitmap = picture && (await decode(picture));
  if (message.press !== latest.press) return;
  if (message.run === coming?.run) begin();
  if (message.run !== sheet?.start.run) return;
  if (bitmap) paint(sheet, bitmap, message.number);
  if (message.receipt) server.ack({ run: message.run, number: message.number });
  if (!message.done) return;
  sheet.done = true;
  judgeAll(sheet, message.verdicts);
  finish(message.words);
}

const decode = (picture) => createImageBitmap(toBlob(picture));

function paint(onto, bitmap, number = 1) {
  const { start, faces: those } = onto;
  const { size } = start;
  if (number < (onto.painted ?? 0)) return; // a later picture was decoded sooner
  onto.painted = number;
  const columns = bitmap.width / size;
  for (const { place, figure: shown } of those) {
    const from = [(place % columns) * size, Math.floor(place / columns) * size, size, size];
    const context = shown.querySelector("canvas").getContext("2d");
    context.drawImage(bitmap, ...from, 0, 0, size, size);
  }
  bitmap.close();
  if (enlarged && those.includes(enlarged)) showLarge();
}

// Without anybody who reads faces, nothing is said about them.
function judgeAll({ faces: those }, verdicts) {
  those.forEach((face, place) => {
    judge(face, verdicts?.[place] ?? { words: "", granted: {} });
  });
}

function judge(face, { words, granted }) {
  Object.assign(face, { words, granted });
  const ticks = Object.entries(granted).map(([name, right]) => tick(name, right));
  face.figure.querySelector("ul").replaceChildren(...ticks);
  if (words) face.figure.querySelector("button").setAttribute("aria-label", words);
  face.figure.title = words;
  if (face === enlarged) showLarge();
}

function finish(text, isProblem = false) {
  coming = null;
  setState(faces.length > 0 ? "finished" : "empty");
  say(text, isProblem);
  offerMore();
}

function offerMore() {
  const more = find(".more");
  const isOffered = Boolean(sheet?.done) && faces.length < MOST;
  if (!isOffered && document.activeElement === more) find(".go").focus();
  more.hidden = !isOffered;
}

function clear() {
  faces.length = 0;
  find(".faces").replaceChildren();
}

function setState(state) {
  if (screen.dataset.state === state) return;
  const focused = document.activeElement?.closest?.(".make .action button");
  screen.dataset.state = state;
  setAside(find(".more"), state === "running");
  if (focused) primary().focus();
}

// The one of its two buttons that is there.
function primary() {
  return find(screen.dataset.state === "running" ? ".halt" : ".go");
}

function say(text, isProblem = false) {
  told.textContent = text;
  told.classList.toggle("problem", isProblem);
}

async function showRecorded(recorded) {
  if (!recorded || sheet) return;
  const badge = find(".badge");
  open(recorded.start, recorded.fields);
  badge.textContent = fill(badge.dataset.words, recorded.start);
  badge.hidden = false;
  const shown = sheet;
  shown.done = true;
  judgeAll(shown, recorded.verdicts);
  offerMore();
  paint(shown, await decode(recorded.image));
}

// One face.

function enlarge(face) {
  enlarged = face;
  dialog.querySelector(".kept").textContent = "";
  showLarge();
  if (!dialog.open) dialog.showModal();
}

function showLarge() {
  const { figure: shown, sheet: of, words, granted, seed } = enlarged;
  const [small, large] = [shown.querySelector("canvas"), dialog.querySelector("canvas")];
  if (large.width !== small.width) large.width = large.height = small.width;
  large.getContext("2d").drawImage(small, 0, 0);
  large.setAttribute("aria-label", words || large.parentElement.getAttribute("aria-label"));
  write(dialog.querySelector(".about"), words);
  const ticks = Object.entries(granted ?? {}).map(([name, right]) => tick(name, right));
  dialog.querySelector("ul").replaceChildren(...ticks);
  const line = dialog.querySelector(".seed");
  write(line, fill(line.dataset.words, { seed }));
  const place = faces.indexOf(enlarged);
  offer(".before", place > 0);
  offer(".after", place < faces.length - 1);
  offer(".png", of.done);
}

function offer(button, isOffered) {
  setAside(dialog.querySelector(button), !isOffered);
}

function go(by) {
  const next = faces[faces.indexOf(enlarged) + by];
  if (next) enlarge(next);
}

async function save() {
  const face = enlarged;
  const { sheet: of, place } = face;
  if (!of.done) return;
  const wish = { run: of.start.run, kind: "png", face: place };
  const file = await answered(server.keep(wish), told.dataset.lost);
  if (file.uri) await download(file.name, file.uri);
  const [line, refusal] = [dialog.querySelector(".kept"), file.words ?? file.problem];
  if (face === enlarged) line.textContent = file.uri ? fill(line.dataset.saved, file) : refusal;
  else if (!file.uri) say(refusal, true);
}

// Compare draws the same face again, step by step.
function how() {
  const { sheet: of, seed } = enlarged;
  const { model: name, asked, guidance, finish } = of.fields;
  const fields = { seed, faces: 1, model: name, asked, finish, ...(asked ? { guidance } : {}) };
  document.dispatchEvent(new CustomEvent("compare", { detail: fields }));
}

// The form between visits.

function restore() {
  const kept = recalled();
  if (kept.seed) form.seed.value = String(kept.seed).slice(0, 40);
  if (kept.guidance) form.guidance.value = String(kept.guidance).slice(0, 20);
  if (kept.finish === "") form.finish.checked = false;
  const radios = [...form.querySelectorAll("[name=model]")];
  const mine = radios.find((radio) => radio.value === kept.model);
  if (mine) mine.checked = true;
  choose(String(kept.asked ?? ""));
}

function recalled() {
  try {
    return JSON.parse(stored("localStorage", KEPT)) ?? {};
  } catch {
    return {}; // somebody else's words
  }
}

function remember() {
  store("localStorage", KEPT, JSON.stringify(fieldsNow()));
}

function choose(asked) {
  const indices = asked.split(".");
  offered(model())
    .querySelectorAll("fieldset")
    .forEach((fieldset, i) => {
      const value = indices[i] === "-" ? "" : (indices[i] ?? "");
      const radios = [...fieldset.querySelectorAll("input")];
      (radios.find((radio) => radio.value === value) ?? radios[0]).checked = true;
    });
  follow();
}

// The form in line with what is chosen.
function follow() {
  for (const those of form.querySelectorAll(".wishes")) {
    those.hidden = those.dataset.model !== model();
  }
  const asks = Boolean(wishes());
  form.guidance.disabled = !asks;
  setAside(find(".clear"), !asks);
}

// Wiring.

form.addEventListener("submit", (event) => {
  event.preventDefault();
  order(fieldsNow());
});
form.addEventListener("change", () => {
  follow();
  remember();
});
find(".halt").addEventListener("click", stop);
find(".clear").addEventListener("click", () => {
  choose("");
  remember();
});
find(".dice").addEventListener("click", () => {
  form.seed.value = String(Math.floor(Math.random() * CALM));
  remember();
});
find(".more").addEventListener("click", () => {
  const { start, fields } = sheet;
  const seed = String(BigInt(start.seed) + BigInt(start.faces));
  order({ ...fieldsNow(), ...fields, seed }, true);
});
dialog.querySelector(".before").addEventListener("click", () => go(-1));
dialog.querySelector(".after").addEventListener("click", () => go(1));
dialog.querySelector(".png").addEventListener("click", save);
dialog.querySelector(".how").addEventListener("click", how);
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
// A press that begins and ends beside it: words that are selected may be dragged over its edge.
let wasBeside = false;
dialog.addEventListener("pointerdown", (event) => {
  wasBeside = isBeside(event);
});
dialog.addEventListener("click", (event) => {
  if (wasBeside && isBeside(event)) dialog.close();
});
function isBeside({ target, clientX: x, clientY: y }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return target === dialog && (x < left || x > right || y < top || y > bottom);
}
document.addEventListener("broken", () => {
  if (screen.dataset.state === "running") finish(silence(told.dataset), true);
});
// Wherever the focus is: a click on the picture takes it from the dialog.
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && dialog.open && !event.altKey && !event.ctrlKey && !event.metaKey) go(by);
});
dialog.addEventListener("close", () => {
  const back = enlarged?.figure.querySelector("button");
  (back?.isConnected ? back : primary()).focus();
  enlarged = null;
});
