// A run as the page keeps it: for each pane its stills in order of calls, and for each still the
// pictures that have come so far, one per lens. The server sends at most 250 stills of a pane.

const LENSES = ["x", "x0", "eps"]; // picture so far, predicted picture, predicted noise
const DECODED = 64; // pictures near the playhead

class Film {
  constructor(start) {
    this.start = start; // the message that opened the run
    this.reels = start.panes.map((pane) => new Reel(pane));
    this.bitmaps = new Map(); // picture to decoded picture, newest use last
  }

  // Adds a still, or the pictures of another lens to one that is there.
  add(still) {
    this.reels[still.pane].add(still);
  }

  get empty() {
    return this.reels.some((reel) => !reel.stills.length);
  }

  // The pane with the most steps sets the pace.
  get longest() {
    return this.reels[0].total >= this.reels[1].total ? 0 : 1;
  }

  // The decoded picture of a still, null when it has none for this lens.
  async decode(still, lens) {
    const picture = still.pictures[lens];
    if (!picture) return null;
    // A promise is kept, so that two wishes decode once.
    const bitmap = this.bitmaps.get(picture) ?? createImageBitmap(picture);
    this.bitmaps.delete(picture);
    this.bitmaps.set(picture, bitmap);
    if (this.bitmaps.size > DECODED) this.bitmaps.delete(this.bitmaps.keys().next().value);
    return bitmap;
  }
}

class Reel {
  constructor(pane) {
    this.pane = pane;
    this.total = pane.levels.length - 1; // calls in the whole run
    this.stills = []; // {calls, seconds, sizes, pictures}
  }

  get reached() {
    return this.stills.at(-1)?.calls ?? -1;
  }

  add({ calls, seconds, sizes, images }) {
    let index = this.stills.length;
    while (index && this.stills[index - 1].calls > calls) index--;
    let still = this.stills[index - 1];
    if (still?.calls !== calls) {
      still = { calls, seconds, sizes, pictures: {} };
      this.stills.splice(index, 0, still);
    }
    for (const [lens, uri] of Object.entries(images)) still.pictures[lens] = toBlob(uri);
  }

  // The stills that have a picture for this lens; before the first call none can have one.
  through(lens) {
    return this.stills.filter((still) => still.pictures[lens] || !still.calls);
  }

  level(still) {
    return this.pane.levels[still.calls];
  }

  noise(still) {
    return this.pane.noise[still.calls];
  }

  // The calls whose pictures through a lens are drawn, and not here.
  lacking(lens) {
    const here = new Set(this.through(lens).map((still) => still.calls));
    return this.pane.kept.filter((calls) => calls <= this.reached && !here.has(calls));
  }
}
