// "Open in Compare": puts a run's name into the form, and says which model draws.

const line = element.querySelector(".drawn-by");

window.cartoonModel = {
  wanted: "",
  async show(run) {
    line.hidden = !run;
    if (run) line.querySelector(".by").textContent = await server.name(run);
  },
};

function choose(run) {
  window.cartoonModel.wanted = run;
  trigger("choose");
  // The form has the name a moment later.
  setTimeout(() => document.querySelector("#run")?.click(), 300);
}

line.querySelector("button").addEventListener("click", () => choose(""));
document.addEventListener("open-in-compare", ({ detail }) => choose(detail.model));
