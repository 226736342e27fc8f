// A run as the page keeps it: frames in order, at most LIMIT of them, evenly thinned.

const LIMIT = 250;
const DECODED = 64; // pictures near the playhead

class Film {
  constructor(start) {
    this.start = start; // the message that opened the run
    this.frames = []; // {calls, seconds, blobs}
    this.stride = 1; // every stride-th frame is kept
    this.seen = 0;
    this.bitmaps = new Map(); // blob to decoded picture, newest use last
  }

  get length() {
    return this.frames.length;
  }

  // Adds a frame; the newest one is always there, the first one always stays.
  add(message) {
    const newest = this.frames[this.length - 1];
    const frame = {
      calls: message.calls,
      seconds: message.seconds,
      blobs: message.images.map((uri, pane) => (uri ? toBlob(uri) : newest.blobs[pane])),
      index: this.seen++,
    };
    if (newest && newest.index % this.stride) this.frames.pop();
    this.frames.push(frame);
    if (this.length > LIMIT) {
      this.stride *= 2;
      this.frames = this.frames.filter(
        (kept) => kept === frame || kept.index % this.stride === 0,
      );
    }
  }

  // The decoded pictures of all panes of a frame.
  decode(frame) {
    return Promise.all(frame.blobs.map((blob) => this.bitmap(blob)));
  }

  // Keeps the last few decoded pictures; a promise, so that two wishes decode once.
  bitmap(blob) {
    const bitmap = this.bitmaps.get(blob) ?? createImageBitmap(blob);
    this.bitmaps.delete(blob);
    this.bitmaps.set(blob, bitmap);
    if (this.bitmaps.size > DECODED) this.bitmaps.delete(this.bitmaps.keys().next().value);
    return bitmap;
  }

  // The frame in which the pane with the most steps stands nearest to a share of its way.
  nearest(share) {
    const level = (1 - share) * this.start.T;
    const distance = (frame) => Math.abs(this.level(frame, this.longest) - level);
    const distances = this.frames.map(distance);
    return distances.indexOf(Math.min(...distances));
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
