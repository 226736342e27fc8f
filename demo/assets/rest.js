// Gradio's loading sign goes on counting seconds, frame by frame, after it has left the page: a
// tenth of a processor for as long as the page is open. Its next frame is called off here, where
// that sign is all that is on the page. Whoever waits by frames for the page to load, as Playwright
// does to evaluate a condition, waits in vain: wait for an element first.

{
  const next = requestAnimationFrame(() => {});
  for (let frame = Math.max(1, next - 20); frame < next; frame++) cancelAnimationFrame(frame);
}
