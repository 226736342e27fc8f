// A run as the page keeps it: frames in order, at most LIMIT of them, evenly thinned.

const LIMIT = 250;

class Film {
  constructor(start) {
    this.start = start; // the message that opened the run
    this.frames = []; // {calls, seconds, blob}
    this.stride = 1; // every stride-th frame is kept
    this.seen = 0;
    this.bitmaps = new Map(); // decoded frames near the playhead
  }

  get length() {
    return this.frames.length;
  }

  // Adds a frame; the newest one is always there, the first one always stays.
  add(message) {
    const frame = {
      calls: message.calls,
      seconds: message.seconds,
      blob: toBlob(message.image),
      index: this.seen++,
    };
    const newest = this.frames[this.length - 1];
    if (newest && newest.index % this.stride) {
      this.frames.pop();
    }
    this.frames.push(frame);
    if (this.length > LIMIT) {
      this.stride *= 2;
      this.frames = this.frames.filter(
        (kept) => kept === frame || kept.index % this.stride === 0,
      );
    }
  }

  async bitmap(position) {
    const frame = this.frames[position];
    let bitmap = this.bitmaps.get(frame);
    if (!bitmap) {
      bitmap = await createImageBitmap(frame.blob);
      this.bitmaps.set(frame, bitmap);
      if (this.bitmaps.size > 40) {
        const [oldest] = this.bitmaps.keys();
        this.bitmaps.get(oldest).close();
        this.bitmaps.delete(oldest);
      }
    }
    return bitmap;
  }

  // The frame in which the pane with the most steps stands nearest to a share of its way.
  nearest(share) {
    const pane = this.longest;
    const total = this.total(pane);
    let best = 0;
    this.frames.forEach((frame, position) => {
      const distance = Math.abs(this.level(frame, pane) - (1 - share) * this.start.T);
      const closest = Math.abs(this.level(this.frames[best], pane) - (1 - share) * this.start.T);
      if (distance < closest && frame.calls[pane] <= total) best = position;
    });
    return best;
  }

  get longest() {
    return this.total(0) >= this.total(1) ? 0 : 1;
  }

  total(pane) {
    return this.start.panes[pane].levels.length - 1;
  }

  level(frame, pane) {
    return this.start.panes[pane].levels[frame.calls[pane]];
  }

  noise(frame, pane) {
    return this.start.panes[pane].noise[frame.calls[pane]];
  }
}

function toBlob(uri) {
  const [head, body] = uri.split(",");
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5, head.indexOf(";")) });
}
