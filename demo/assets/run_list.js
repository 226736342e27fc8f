// The list of runs. Rows stay where they are, so that a click never misses.

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
