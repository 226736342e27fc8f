// A line over the panes while a field of the form holds something unusual, and the way back.

const CLEARED = "[cleared]"; // the server puts the fields here that the way back clears,
const FIELDS = "[fields]"; // and those that the words depend on
const [ABOUT] = CLEARED;
const line = element.querySelector(".notice");
let told = ""; // what the words are of

cartoon.follow(async (fields) => {
  const now = fields[ABOUT] ? JSON.stringify(FIELDS.map((name) => fields[name])) : "";
  if (now === told) return;
  told = now;
  const words = now && (await server.words(fields));
  if (told !== now) return; // meanwhile the form has become something else
  if (words === undefined) told = null; // no answer: the next change asks again
  line.querySelector(".by").textContent = words ?? "";
  line.hidden = !now;
});

line.querySelector("button").addEventListener("click", () => {
  document.querySelector("#run").focus(); // this button goes, and the keyboard would go with it
  const cleared = Object.fromEntries(CLEARED.map((name) => [name, ""]));
  const detail = { ...cartoon.now(), ...cleared };
  document.dispatchEvent(new CustomEvent("compare", { detail }));
});
