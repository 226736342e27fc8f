// The header's tabs. Screens stay in the page when another is shown: what they do goes on. Which
// one is shown is in the address; the first needs no word there.

const KEPT = "cartoon-tab";
const tabs = [...element.querySelectorAll("[role=tab]")];

function open(name, focus = false) {
  // Hidden with its screen, a dialog would still keep every press from the page.
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const found = tabs.find((tab) => tab.dataset.tab === name) ?? tabs[0];
  tabs.forEach((tab) => {
    tab.setAttribute("aria-selected", String(tab === found));
    tab.tabIndex = tab === found ? 0 : -1;
  });
  document.body.dataset.tab = found.dataset.tab;
  store("sessionStorage", KEPT, found.dataset.tab);
  const fragment = found === tabs[0] ? "" : `#${found.dataset.tab}`;
  history.replaceState(history.state, "", location.pathname + location.search + fragment);
  if (focus) found.focus();
  document.dispatchEvent(new CustomEvent("tab", { detail: found.dataset.tab }));
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(tab.dataset.tab));
  tab.addEventListener("keydown", ({ key }) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (by) open(tabs[(i + by + tabs.length) % tabs.length].dataset.tab, true);
  });
});
element.querySelector("#pill").addEventListener("click", () => open("train"));
const broken = element.querySelector(".broken");
document.addEventListener("broken", () => {
  broken.hidden = false;
});
broken.querySelector("button").addEventListener("click", () => location.reload());
// What was pressed on another screen, and has the keyboard, is hidden with it.
document.addEventListener("compare", () => {
  open("compare", document.body.dataset.tab !== "compare");
});
addEventListener("hashchange", () => open(location.hash.slice(1)));
// Who follows a link to a comparison wants to see that, whatever was open here before.
open(location.hash.slice(1) || (cartoon.addressed() ? "" : stored("sessionStorage", KEPT)));

// Such a button has just taken the place of the one that was pressed, or has changed its words: the
// second click of a double click was not meant for it.
const NOT_TWICE = "#stop, .halt, .delete, .continue";
document.addEventListener(
  "click",
  (event) => {
    if (event.detail < 2 || !event.target.closest(NOT_TWICE)) return;
    event.preventDefault();
    event.stopPropagation();
  },
  { capture: true },
);

// A key that is held presses a button once: each repeat would be another click, on what has come in
// the button's place too.
document.addEventListener(
  "keydown",
  (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest("button")) {
      event.preventDefault();
    }
  },
  { capture: true },
);

// A file that is dropped where nothing takes it would be opened in place of the page.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
}
