// Gradio drops a press that comes while it is still ending the run of the press before, and one
// that comes twice: so it is repeated until the server was heard of. Tells whether it ever was.

const PRESSES = 20;
const PATIENCE = 300; // milliseconds

async function insist(press, heard) {
  const hopeless = () => document.body.classList.contains("broken");
  for (let presses = 0; presses < PRESSES && !heard() && !hopeless(); presses++) {
    press();
    const end = performance.now() + PATIENCE;
    while (!heard() && performance.now() < end) await new Promise((wait) => setTimeout(wait, 20));
  }
  return heard();
}
