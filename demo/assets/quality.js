// The chart under More: how near to real faces, against calls of the network, and where on it the
// form's settings are. Gradio calls this with `element` and `props` in scope.

const [TOP, BOTTOM, ROW] = [22, 158, 16]; // pixels: of the plot, and of a line of type
const RIGHT = 36; // pixels of the scale beside the plot
const APART = 44; // pixels between two stems that leave room for both names

const { curves, floor, spacing, names, words } = props.value;
const chart = element.querySelector(".quality");
const svg = chart.querySelector("svg");

let form = null;
let plot = null; // what turns calls and distance into pixels

cartoon.follow((fields) => {
  form = fields;
  // It tells of the shipped weights, of pictures nobody asked for, as the network left them.
  chart.hidden = Boolean(form.model || form.asked || form.finish);
  mark();
});
new ResizeObserver(draw).observe(svg);

// Curves, floor and scales; they change with the chart's width alone.
function draw() {
  const width = svg.clientWidth;
  if (!width) return;
  svg.replaceChildren();
  const labelled = curves.filter(({ label }) => label);
  const labels = [...labelled, { label: words.floor }].map(labelOf);
  const left = Math.max(...labels.map((label) => label.getComputedTextLength())) + 10;
  plot = scales(left, width - RIGHT);
  drawScales();
  put(svg, "path", { class: "floor", d: `M${plot.left} ${plot.y(floor)}H${plot.right}` });
  for (const curve of curves) drawCurve(curve);
  const heights = [...labelled.map(({ points }) => points[0][1]), floor].map(plot.y);
  spread(heights).forEach((y, i) => {
    labels[i].setAttribute("x", left - 10);
    labels[i].setAttribute("y", y + 4);
  });
  mark();
}

function scales(left, right) {
  const calls = curves.flatMap(({ points }) => points.map(([at]) => at));
  const distances = [floor, ...curves.flatMap(({ points }) => points.map(([, far]) => far))];
  return {
    left,
    right,
    x: logarithmic([Math.min(...calls), Math.max(...calls)], [left + 6, right - 6]),
    y: logarithmic([Math.max(...distances), Math.min(...distances)], [TOP + 6, BOTTOM - 6]),
  };
}

function logarithmic([from, to], [start, end]) {
  const whole = Math.log(to / from) || 1;
  return (value) => start + (Math.log(value / from) / whole) * (end - start);
}

function drawScales() {
  const calls = curves.flatMap(({ points }) => points.map(([at]) => at));
  const numbers = [...new Set(calls)].sort((one, other) => one - other);
  put(svg, "path", { class: "axis", d: `M${plot.left} ${BOTTOM}H${plot.right}` });
  put(svg, "text", { class: "end", x: plot.left - 10, y: BOTTOM + ROW }, words.calls);
  for (const at of thinned(numbers, plot.x, 32)) {
    put(svg, "text", { class: "middle", x: plot.x(at), y: BOTTOM + ROW }, at.toLocaleString("en"));
  }
  const round = [-1, 0, 1, 2, 3, 4].flatMap((power) => [1, 2, 5].map((n) => n * 10 ** power));
  const inside = round.filter((far) => plot.y(far) >= TOP && plot.y(far) <= BOTTOM);
  for (const far of thinned(inside, plot.y, 24)) {
    const y = plot.y(far);
    put(svg, "path", { class: "grid", d: `M${plot.left} ${y}H${plot.right}` });
    put(svg, "text", { x: plot.right + 6, y: y + 4 }, far.toLocaleString("en"));
  }
}

// The values whose places are at least so many pixels apart.
function thinned(values, place, apart) {
  const kept = [];
  for (const value of values) {
    if (!kept.length || Math.abs(place(value) - place(kept.at(-1))) >= apart) kept.push(value);
  }
  return kept;
}

function drawCurve({ sampler, eta, points }) {
  const places = points.map(([calls, far]) => [plot.x(calls), plot.y(far)]);
  const group = put(svg, "g", { class: "curve", "data-sampler": sampler, "data-eta": eta });
  group.style.opacity = 1 - 0.6 * eta;
  put(group, "path", { d: `M${places.map((place) => place.join(" ")).join("L")}` });
  for (const [cx, cy] of places) put(group, "circle", { cx, cy, r: 2 });
}

function labelOf({ label, sampler = "" }) {
  return put(svg, "text", { class: "label end", "data-sampler": sampler }, label);
}

// Heights of lines of type, each as near its own as can be, none over another: those that would
// meet form a group around the middle of their own heights.
function spread(heights) {
  const order = heights.map((y, i) => [y, i]).sort(([one], [other]) => one - other);
  const groups = [];
  order.forEach(([y, i], place) => {
    let group = { at: y - place * ROW, members: [i] };
    while (groups.at(-1)?.at >= group.at) group = joined(groups.pop(), group);
    groups.push(group);
  });
  const lowest = BOTTOM - (heights.length - 1) * ROW;
  const placed = [];
  let place = 0;
  for (const { at, members } of groups) {
    for (const i of members) placed[i] = Math.min(at, lowest) + ROW * place++;
  }
  return placed;
}

function joined(above, below) {
  const members = [...above.members, ...below.members];
  const sum = above.at * above.members.length + below.at * below.members.length;
  return { at: sum / members.length, members };
}

// Where the form is: a mark on a curve and a sentence for each pane.

function mark() {
  const found = ["left", "right"].map((side) => locate(side));
  for (const place of found) {
    chart.querySelector(`.found.${place.side}`).textContent = sentence(place);
  }
  if (!plot) return;
  for (const old of svg.querySelectorAll(".mark")) old.remove();
  const marked = found.filter(({ distance }) => distance);
  for (const place of marked) {
    const other = marked.find((one) => one !== place);
    drawMark(place, other && plot.x(other.calls) - plot.x(place.calls));
  }
}

// A side of the form: its sampler's name, its calls, and the distance as far as it was measured.
function locate(side) {
  const value = (name) => String(form[`${side}_${name}`]).trim();
  const sampler = value("sampler");
  const eta = sampler === "ddim" ? Number(value("eta").replace(",", ".") || Number.NaN) : 0;
  const calls = /^\d+$/.test(value("steps")) ? Number(value("steps")) : Number.NaN;
  const curve = curves.find((one) => one.sampler === sampler && one.eta === eta);
  const isMeasured = curve && value("spacing") === spacing;
  const name = eta ? fill(words.with_eta, { name: names[sampler], eta }) : names[sampler];
  return { side, sampler, name, calls, eta, ...(isMeasured && read(curve.points, calls)) };
}

// The distance at so many calls: measured there, or on the line between two that were.
function read(points, calls) {
  const next = points.findIndex(([at]) => at >= calls);
  if (next < 0 || calls < points[0][0]) return {};
  const [at, distance] = points[next];
  if (at === calls) return { distance, exact: true };
  const [before, far] = points[next - 1];
  const share = Math.log(calls / before) / Math.log(at / before);
  return { distance: far * (distance / far) ** share, exact: false };
}

function sentence({ side, name, calls, eta, distance, exact }) {
  if (!(calls >= 1 && eta >= 0 && eta <= 1)) return ""; // somebody is typing
  const count = fill(calls === 1 ? words.call : words.count, { calls: calls.toLocaleString("en") });
  const template = !distance ? words.unmeasured : exact ? words.measured : words.between;
  const rounded = distance < 10 ? distance?.toPrecision(2) : Math.round(distance);
  return fill(template, { side: words[side], name, count, distance: rounded });
}

// `other` says how many pixels further right the other stem is: two names that are near part.
function drawMark({ side, sampler, calls, distance }, other = Number.POSITIVE_INFINITY) {
  const [x, y] = [plot.x(calls), plot.y(distance)];
  const isFirst = other > 0 || (other === 0 && side === "left");
  const isNear = Math.abs(other) < APART;
  const anchor = !isNear ? "middle" : isFirst ? "end" : "start";
  const group = put(svg, "g", { class: "mark", "data-side": side, "data-sampler": sampler });
  put(group, "path", { d: `M${x} ${TOP - 4}V${BOTTOM}` });
  put(group, "circle", { cx: x, cy: y, r: 4.5 });
  const aside = { middle: 0, end: 3, start: -3 }[anchor];
  put(group, "text", { class: anchor, x: x + aside, y: TOP - 9 }, words[side]);
}

function put(parent, tag, attributes, text = "") {
  const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
  part.textContent = text;
  parent.append(part);
  return part;
}
