// Sends a visitor's own pictures, and has the server read them.

const AT_ONCE = 6; // uploads
const SENDINGS = 4; // of one file, before all are given up
const PAUSE = 500; // milliseconds after the first of them, and so many more after every next
const REFUSALS = [413, 507]; // answers to an upload that would be the same again
const NAMED = 40; // letters of a file's name, its suffix among them, that the server is told
const QUARTER = 25; // percent of an upload between two words to those who listen

let upload_ = null; // the token of this visitor's pictures
let unread = null; // those that were sent, and that the server had no time to read
let sending = 0; // uploads: only the latest counts
let reading = false; // whether one is on its way

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
