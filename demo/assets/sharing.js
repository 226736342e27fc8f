// Saves files, copies the address, takes pictures back, and offers the examples.

let token = null; // of a picture that was given back
let saving = false; // whether a file is being made

async function save(kind) {
  saving = true;
  refresh();
  try {
    await make(kind);
  } finally {
    saving = false;
    refresh();
  }
}

async function make(kind) {
  const shown = { film, clock, lens, face: zoom };
  say(fill(words.dataset.saving, { kind: kind.toUpperCase() }));
  const file = await answered(server.keep(await wishFor(kind, shown)), words.dataset.lost);
  if (!file.uri) return say(file.words ?? file.problem, true);
  await download(file.name, file.uri);
  say(fill(words.dataset.saved, file));
}

// A film has every moment that there is, also those that the page is still fetching.
async function wishFor(kind, { film, clock, lens, face }) {
  if (kind !== "png") await fetched;
  const moments = momentsOf(film, clock, lens).map(({ stills }) =>
    stills.map((still) => still.calls),
  );
  return { run: film.start.run, kind, face, lens, moments };
}

async function share() {
  const link = cartoon.link();
  const copied = await copy(link);
  say(copied ? words.dataset.copied : fill(words.dataset.notCopied, { link }));
}

async function give(file) {
  if (file.size > MOST_BYTES) return say(words.dataset.tooLarge, true);
  const wish = { png: await base64Of(file) };
  const given = await answered(server.read(wish), words.dataset.lost);
  if (!given.token) return say(given.words ?? given.problem, true);
  token = given.token;
  find(".replay").hidden = false;
  setFields(given.fields, given.face);
  say(given.words);
}

// `face` is the one that these settings want enlarged, if they want any.
function setFields(fields, face) {
  next = face;
  cartoon.offer(fields);
  trigger("settings");
}

// Another part of the page wants to see these settings drawn.
async function compare(fields) {
  while (pressing) await pressing;
  stop();
  draw(fields);
}

function draw(fields, says) {
  press(async () => {
    setFields(fields);
    await whenFilled(fields);
    await run();
  }, says);
}

function offerExamples(examples) {
  const chips = document.querySelector("#examples .chips");
  for (const { name, says, fields } of examples) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = name;
    chip.title = says;
    chip.addEventListener("click", () => draw(fields, says));
    chips.append(chip);
  }
}

// Until the form shows what it was given: the click on Run would send what stood there before.
async function whenFilled(fields) {
  const boxes = Object.entries(fields)
    .map(([name, value]) => [document.querySelector(`#${name} :is(input, textarea)`), value])
    .filter(([box]) => box?.type === "text" || box?.tagName === "TEXTAREA");
  for (let tries = 0; tries < 100; tries++) {
    await new Promise(requestAnimationFrame);
    if (boxes.every(([box, value]) => box.value === value)) return;
  }
}
