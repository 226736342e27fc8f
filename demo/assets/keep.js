// What visitors take with them and bring back: files, the page's address, a dropped picture.

const MOST_BYTES = 4_000_000; // of a picture that is given back

// The bytes of a data URI.
function toBlob(uri) {
  const [head, body] = uri.split(",");
  // Only new browsers have the first, which is ten times as fast.
  const bytes =
    Uint8Array.fromBase64?.(body) ?? Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5, head.indexOf(";")) });
}

// Hands a data URI, which may hold a whole model, to the browser as a download.
async function download(name, uri) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await fetch(uri)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Copies text; in a frame without the right to, the older way. Returns whether it worked.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus({ preventScroll: true });
    return copied;
  }
}

async function base64Of(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let letters = "";
  for (let i = 0; i < bytes.length; i += 32_768) {
    letters += String.fromCharCode(...bytes.subarray(i, i + 32_768));
  }
  return btoa(letters);
}

// Calls `receive` with a file that is dropped anywhere on the page, as long as `here` says so;
// `over` shows that it may be dropped.
function onDrop(here, receive, over) {
  const isFile = (event) => here() && event.dataTransfer?.types.includes("Files");
  let depth = 0; // dragenter and dragleave also come from every element on the way
  const enter = (by) => {
    depth = Math.max(depth + by, 0);
    over(depth > 0);
  };
  document.addEventListener("dragenter", (event) => isFile(event) && enter(1));
  document.addEventListener("dragleave", (event) => isFile(event) && enter(-1));
  document.addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    if (event.dataTransfer.files.length) receive(event.dataTransfer.files[0]);
  });
}
