// Words of the page with [names] in them, and what is said when the server does not answer.

function fill(template, values) {
  return template.replace(/\[(\w+)\]/g, (whole, name) => values[name] ?? whole);
}

// Words that are there already stay: what is selected in them, and those who listen hear nothing.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Whether the page lost its server for good: see connection.js.
const isBroken = () => document.body.classList.contains("broken");

// Why nothing comes of what was pressed.
const silence = ({ lost, broken }) => (isBroken() ? broken : lost);

// What the server answered to a call, or {problem: lost}. Gradio answers a call that failed, on
// the way or there, with undefined; it hardly ever rejects one.
async function answered(promise, lost) {
  const answer = await Promise.resolve(promise).catch(() => undefined);
  return answer === undefined ? { problem: lost } : answer;
}
