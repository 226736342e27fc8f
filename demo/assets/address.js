// Settings between visits: in the page's address, and in the browser for whoever comes without.
// Loaded in the page's head, because the form asks for it before the stage is there.

window.cartoon = (() => {
  const STORED = "cartoon-diffusion";
  const DEFAULTS = "[defaults]"; // the server puts the form's fields here, in order
  const LABELS = "[labels]"; // and what becomes of some of them, by left and right sampler

  const names = Object.keys(DEFAULTS);
  const LONGEST = 255; // letters of a field
  let now = { ...DEFAULTS };
  let pending = null; // what `take` hands to the form
  const followers = []; // who is told of every change
  let markFilled;
  const filled = new Promise((resolve) => {
    markFilled = resolve;
  });

  // The form as an address or the last visit filled it; text of the address is cut, not trusted.
  function initial() {
    const given = addressed() ?? stored();
    markFilled();
    return values(given);
  }

  // What the address says of the form; nothing where it has none of the fields.
  function addressed() {
    const address = new URLSearchParams(location.search);
    if (!names.some((name) => address.has(name))) return null;
    return Object.fromEntries(names.map((name) => [name, address.get(name)?.slice(0, LONGEST)]));
  }

  function values(given) {
    become((name) => fitting(name, given?.[name]));
    return names.map((name) => now[name]);
  }

  function become(value) {
    now = Object.fromEntries(names.map((name, i) => [name, value(name, i)]));
    for (const tell of followers) tell(now);
  }

  function fitting(name, value) {
    if (value === undefined || value === null) return DEFAULTS[name];
    if (typeof DEFAULTS[name] === "number") return Number(value) || DEFAULTS[name];
    return String(value);
  }

  function stored() {
    try {
      return JSON.parse(localStorage.getItem(STORED));
    } catch {
      return null; // no storage here, or somebody else's words in it
    }
  }

  // The form has changed: the address follows, and the browser remembers.
  function remember(...fields) {
    become((_, i) => fields[i]);
    try {
      localStorage.setItem(STORED, JSON.stringify(now));
    } catch {
      // A browser that keeps nothing still has the address.
    }
    history.replaceState(history.state, "", `${location.pathname}?${here()}${location.hash}`);
  }

  // The address with the form in it, and with whatever else was there; a key is not for passing on.
  function here() {
    const address = new URLSearchParams(location.search);
    address.delete("operator");
    for (const name of names) address.set(name, now[name]);
    return address;
  }

  // Calls `tell` with the form as it is, and again whenever it changes.
  function follow(tell) {
    followers.push(tell);
    tell(now);
  }

  function link() {
    return `${location.origin}${location.pathname}?${new URLSearchParams(now)}`;
  }

  return {
    initial,
    addressed,
    filled, // a promise: the address or the last visit has filled the form
    remember,
    follow,
    link,
    now: () => now,
    areDefaults: (some = names) =>
      some.every((name) => String(now[name]) === String(DEFAULTS[name])),
    labels: (left, right) => LABELS[left]?.[right],
    // What the form should become; `take` is called by the event that fills it.
    offer: (fields) => {
      pending = { ...DEFAULTS, ...fields };
    },
    take: () => values(pending),
  };
})();
