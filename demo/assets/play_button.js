// The button that plays and pauses, wherever there is one.

function markPlaying(button, isPlaying) {
  const words = isPlaying ? button.dataset.pause : button.dataset.play;
  button.classList.toggle("playing", isPlaying);
  button.setAttribute("aria-label", words);
  button.title = words;
}
