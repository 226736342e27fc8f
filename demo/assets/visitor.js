// Who this is: what the server lets a browser stop and delete depends on it.

const OWNER = "cartoon-owner";
const OPERATOR = "cartoon-operator";

const keys = { owner: name(), operator: operator() };

// This browser's name for itself: who started a run may stop it.
function name() {
  const kept = stored("localStorage", OWNER) || chance();
  store("localStorage", OWNER, kept);
  return kept;
}

// The operator comes with a key in the address. Anybody can send a link: the key is kept apart
// from the browser's name, and not for good.
function operator() {
  const given = new URLSearchParams(location.search).get("operator");
  if (given) store("sessionStorage", OPERATOR, given);
  return given || stored("sessionStorage", OPERATOR);
}

function chance() {
  return [...crypto.getRandomValues(new Uint8Array(24))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}
