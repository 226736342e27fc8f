// What becomes of requests that are lost on their way. Gradio gives the whole page up for one that
// is, and loads it anew: what was drawn on it would be gone. So it is sent again before Gradio
// hears of it; and where a stream broke, the page stays as it is until its visitor leaves it.
// Loaded in the page's head, before Gradio is.

{
  const AGAIN = /\/(queue\/(join|data)|component_server)\b/;
  const ONCE = /"fn_name":"(start|resume|remove)"/; // a second one would be refused, or do more
  const ALIVE = /\/app_id$/; // Gradio asks for it when a stream broke, and reloads when it comes
  const SENDINGS = 5;
  const PAUSE = 400; // milliseconds

  const { fetch } = window;
  window.fetch = async (to, options) => {
    const address = String(to?.url ?? to);
    if (address.startsWith("data:")) return fetch(to, options); // and may be long
    const { pathname } = new URL(address, location.href);
    if (ALIVE.test(pathname)) return alive(() => fetch(to, options));
    if (!AGAIN.test(pathname) || ONCE.test(options?.body)) return fetch(to, options);
    return insistently(() => fetch(to, options), options?.signal ?? to?.signal);
  };

  async function insistently(send, signal) {
    for (let sendings = 1; ; sendings++) {
      try {
        return await send();
      } catch (error) {
        if (sendings === SENDINGS || signal?.aborted) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }

  // The server is there again, though not for what this page had begun: Gradio goes on waiting.
  async function alive(ask) {
    if (document.body.classList.contains("broken")) return Response.error();
    const answer = await ask();
    if (!answer.ok) return answer;
    document.body.classList.add("broken");
    document.dispatchEvent(new Event("broken"));
    return Response.error();
  }
}
