// A line over the panes while a field of the form holds something unusual, and the way back.
// FIELD is put here by the server.

const FIELD = "[field]";
const line = element.querySelector(".notice");
let told = "";

cartoon.follow(async (fields) => {
  const now = fields[FIELD] ? JSON.stringify(fields) : "";
  if (now === told) return;
  told = now;
  const words = now && (await server.words(fields));
  if (told !== now) return; // meanwhile the form has become something else
  line.querySelector(".by").textContent = words;
  line.hidden = !now;
});

line.querySelector("button").addEventListener("click", () => {
  const fields = { ...cartoon.now(), [FIELD]: "" };
  document.dispatchEvent(new CustomEvent("compare", { detail: fields }));
});
