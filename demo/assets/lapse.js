// The time-lapse of the run on show: fetches its sheets, paints and plays them.

const FRAMES = 6; // previews per second of the time-lapse

let shown = null; // [images, seconds, run] of the sheet on show, or coming
let wanted = null; // of the one that should be
let fetching = false;
let following = true; // whether the newest sheet is shown as it comes
let playing = null;
const sheets = new Map(); // "run images" to a promise of a picture

// A slider over all sheets of the run.
function previews(run) {
  const slider = find(".scrub");
  const last = run.previews.length - 1;
  slider.max = Math.max(last, 0);
  slider.disabled = last < 1;
  find(".lapse .play").disabled = last < 1;
  if (last < 0) return;
  if (following && !playing) slider.value = last;
  sheet(run, Number(slider.value));
}

// One sheet is fetched at a time, and painted even when a newer one has come meanwhile.
async function sheet(run, index) {
  wanted = [...run.previews[Math.min(index, run.previews.length - 1)], run.name];
  if (fetching) return;
  fetching = true;
  while (wanted && String(wanted) !== String(shown)) {
    const sought = wanted;
    const [images, seconds, name] = sought;
    const picture = await fetched(name, images).catch(() => null);
    if (picture && name === watched) {
      paint(picture, images, seconds);
      shown = sought;
    } else if (sought === wanted) break; // the next look asks for it again
  }
  fetching = false;
}

function paint(picture, images, seconds) {
  const canvas = find(".sheet canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  canvas.dataset.images = images;
  const { words } = find(".position").dataset;
  position(fill(words, { images: number(images), time: time(seconds) }));
}

// What the sheet is of: under it, and what the slider says to those who listen.
function position(text) {
  write(find(".position"), text);
  find(".scrub").setAttribute("aria-valuetext", text);
}

function fetched(run, images) {
  const key = `${run} ${images}`;
  if (!sheets.has(key)) {
    const coming = decoded(run, images);
    coming.catch(() => sheets.delete(key));
    sheets.set(key, coming);
  }
  return sheets.get(key);
}

async function decoded(run, images) {
  const { uri, problem } = await answered(server.preview({ run, images }), lost);
  if (!uri) throw new Error(problem);
  const picture = new Image();
  picture.src = uri;
  await picture.decode();
  return picture;
}

function play() {
  const run = known?.run;
  if (!run) return;
  following = false;
  const slider = find(".scrub");
  if (Number(slider.value) >= Number(slider.max)) slider.value = 0;
  markPlaying(find(".lapse .play"), true);
  const mine = {};
  playing = mine;
  const step = async () => {
    if (playing !== mine) return;
    if (!known.run) return pause(true); // nobody looks
    await sheet(known.run, Number(slider.value));
    await new Promise((resolve) => setTimeout(resolve, 1000 / FRAMES));
    if (playing !== mine) return;
    if (Number(slider.value) >= Number(slider.max)) return pause(true);
    slider.value = Number(slider.value) + 1;
    step();
  };
  step();
}

function pause(thenFollow = false) {
  playing = null;
  following = thenFollow;
  markPlaying(find(".lapse .play"), false);
}
