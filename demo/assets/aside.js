// A button that cannot be pressed just now. One that is really disabled would lose the keyboard that
// is on it.

function setAside(button, isAside) {
  button.setAttribute("aria-disabled", String(isAside));
}
