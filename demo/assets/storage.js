// What a browser keeps, in "localStorage" or "sessionStorage". Where it may keep nothing, there is
// nothing: even to name the storage is an error then.

function stored(where, key) {
  try {
    return window[where].getItem(key);
  } catch {
    return null;
  }
}

function store(where, key, value) {
  try {
    if (value === null) window[where].removeItem(key);
    else window[where].setItem(key, value);
  } catch {
    // The page works without.
  }
}
