// Words of the page with [names] in them.

function fill(template, values) {
  return template.replace(/\[(\w+)\]/g, (whole, name) => values[name] ?? whole);
}
