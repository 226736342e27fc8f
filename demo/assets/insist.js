// Gradio drops a press that comes while it is still ending the run of the press before, and one
// that comes twice: so it is repeated until the server was heard of. Tells whether it ever was.

const PRESSES = 20;
const PATIENCE = 300; // milliseconds

async function insist(press, heard) {
  for (let presses = 0; presses < PRESSES && !heard() && !isBroken(); presses++) {
    press();
    const end = performance.now() + PATIENCE;
    while (!heard() && performance.now() < end) await new Promise((wait) => setTimeout(wait, 20));
  }
  return heard();
}

// Whether a message tells that its run goes on. Of one that was stopped here it comes only when the
// server did not hear of it: frames are on the way, and cease when nobody tells that they came.
const goesOn = ({ type }) => ["beat", "aside"].includes(type);
