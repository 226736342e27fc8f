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
let sheet = null; // the faces that are being drawn
let sent = null; // what the last press of Make asked for
let enlarged = null; // a face
let answers = 0; // of the server, to a press of Make

watch("value", () => receive(props.value));
restore();
follow();
server.opening().then(showRecorded);

function receive(message) {
  if (["start", "problem", "stopped"].includes(message?.type)) answers++;
  if (message?.type === "start") begin(message);
  if (message?.type === "frame" && message.run === sheet?.start.run) draw(message);
  if (message?.type === "aside" && message.run === sheet?.start.run) say(message.words);
  if (message?.type === "problem") finish(message.words, true);
  if (message?.type === "stopped" && screen.dataset.state === "running") {
    finish(told.dataset.stopped);
  }
}

// Orders.

function order(fields, more = false) {
  if (screen.dataset.state === "running") return;
  sent = { ...fields, more };
  setState("running");
  const before = answers;
  insist(
    () => trigger("order", fields),
    () => answers > before,
  );
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

function begin(start) {
  if (!sent?.more) clear();
  open(start, sent ?? fieldsNow());
  say(fill(told.dataset.going, start));
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

async function draw(message) {
  const drawn = sheet;
  const picture = message.stills[0]?.images.x;
  if (picture) await paint(drawn, picture, message.number);
  if (message.receipt) server.ack({ run: message.run, number: message.number });
  if (!message.done || drawn !== sheet) return;
  drawn.done = true;
  judgeAll(drawn, message.verdicts);
  finish(message.words);
}

async function paint(onto, picture, number = 1) {
  const { start, faces: those } = onto;
  const { size } = start;
  const bitmap = await createImageBitmap(toBlob(picture));
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
  const some = faces.length > 0;
  setState(some ? "finished" : "empty");
  say(text, isProblem);
  find(".more").hidden = !sheet?.done || faces.length >= MOST;
}

function clear() {
  faces.length = 0;
  find(".faces").replaceChildren();
  find(".badge").hidden = true;
  find(".more").hidden = true;
}

function setState(state) {
  const focused = document.activeElement?.closest?.(".make .action button");
  screen.dataset.state = state;
  if (focused) find(state === "running" ? ".halt" : ".go").focus();
}

function say(text, isProblem = false) {
  told.textContent = text;
  told.classList.toggle("problem", isProblem);
}

function showRecorded(recorded) {
  if (!recorded || sheet) return;
  const badge = find(".badge");
  open(recorded.start, recorded.fields);
  badge.textContent = fill(badge.dataset.words, recorded.start);
  badge.hidden = false;
  sheet.done = true;
  paint(sheet, recorded.image);
  judgeAll(sheet, recorded.verdicts);
  find(".more").hidden = false;
}

// One face.

function enlarge(face) {
  enlarged = face;
  showLarge();
  if (!dialog.open) dialog.showModal();
}

function showLarge() {
  const { figure: shown, sheet: of, words, granted, seed } = enlarged;
  const [small, large] = [shown.querySelector("canvas"), dialog.querySelector("canvas")];
  if (large.width !== small.width) large.width = large.height = small.width;
  large.getContext("2d").drawImage(small, 0, 0);
  large.setAttribute("aria-label", words || large.parentElement.getAttribute("aria-label"));
  dialog.querySelector(".about").textContent = words;
  const ticks = Object.entries(granted ?? {}).map(([name, right]) => tick(name, right));
  dialog.querySelector("ul").replaceChildren(...ticks);
  const line = dialog.querySelector(".seed");
  line.textContent = fill(line.dataset.words, { seed });
  const place = faces.indexOf(enlarged);
  dialog.querySelector(".before").disabled = place <= 0;
  dialog.querySelector(".after").disabled = place >= faces.length - 1;
  dialog.querySelector(".png").disabled = !of.done;
}

function go(by) {
  const next = faces[faces.indexOf(enlarged) + by];
  if (next) enlarge(next);
}

async function save() {
  const { sheet: of, place } = enlarged;
  const wish = { run: of.start.run, kind: "png", face: place };
  const file = await answered(server.keep(wish), told.dataset.lost);
  const line = dialog.querySelector(".about");
  if (!file.uri) {
    line.textContent = file.words ?? file.problem;
    return;
  }
  await download(file.name, file.uri);
  line.textContent = fill(told.dataset.saved, file);
}

// Compare draws the same face again, step by step.
function how() {
  const { sheet: of, seed } = enlarged;
  const { model: name, asked, guidance, finish } = of.fields;
  dialog.close();
  const fields = { seed, faces: 1, model: name, asked, finish, ...(asked ? { guidance } : {}) };
  document.dispatchEvent(new CustomEvent("compare", { detail: fields }));
}

// The form between visits.

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    if (kept.seed) form.seed.value = String(kept.seed).slice(0, 40);
    if (kept.guidance) form.guidance.value = String(kept.guidance).slice(0, 20);
    if (kept.finish === "") form.finish.checked = false;
    const radios = [...form.querySelectorAll("[name=model]")];
    const mine = radios.find((radio) => radio.value === kept.model);
    if (mine) mine.checked = true;
    choose(String(kept.asked ?? ""));
  } catch {
    // No storage here, or somebody else's words in it.
  }
}

function remember() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(fieldsNow()));
  } catch {
    // A browser that keeps nothing still makes faces.
  }
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
  form.classList.toggle("asks", Boolean(wishes()));
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
find(".halt").addEventListener("click", () => trigger("halt"));
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
  find(".badge").hidden = true;
  order({ ...fieldsNow(), ...fields, seed }, true);
});
dialog.querySelector(".before").addEventListener("click", () => go(-1));
dialog.querySelector(".after").addEventListener("click", () => go(1));
dialog.querySelector(".png").addEventListener("click", save);
dialog.querySelector(".how").addEventListener("click", how);
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // beside it
});
dialog.addEventListener("keydown", ({ key }) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (by) go(by);
});
dialog.addEventListener("close", () => {
  enlarged?.figure.querySelector("button").focus();
  enlarged = null;
});
