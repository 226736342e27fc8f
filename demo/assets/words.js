// Words of the page with [names] in them, and what is said when the server does not answer.

function fill(template, values) {
  return template.replace(/\[(\w+)\]/g, (whole, name) => values[name] ?? whole);
}

// Words that are there already stay: what is selected in them, and those who listen hear nothing.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Why nothing comes of what was pressed.
function silence({ lost, broken }) {
  return document.body.classList.contains("broken") ? broken : lost;
}

// What the server answered to a call, or {problem: lost}. Gradio answers a call that failed, on
// the way or there, with undefined; it hardly ever rejects one.
async function answered(promise, lost) {
  const answer = await Promise.resolve(promise).catch(() => undefined);
  return answer === undefined ? { problem: lost } : answer;
}
