// Gradio's loading sign goes on counting seconds, frame by frame, after it has left the page: a
// tenth of a processor for as long as the page is open. Its next frame is called off here, where
// that sign is all that is on the page.

{
  const next = requestAnimationFrame(() => {});
  for (let frame = Math.max(1, next - 20); frame < next; frame++) cancelAnimationFrame(frame);
}
