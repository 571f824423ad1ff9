// The pages work without this. It sets the zone of the browser, and keeps Live and Verify moving.
"use strict";
(() => {
  const up = document.body.dataset.up;
  const here = new URL(location.href);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const refused = "zone-refused";
  try {
    if (zone && !here.searchParams.get("tz") && zone !== document.body.dataset.tz && sessionStorage.getItem(refused) !== zone) {
      here.searchParams.set("tz", zone);
      // Browsers name some zones as the server's tables no longer do: then days are of UTC.
      fetch(here, { method: "HEAD", credentials: "same-origin" }).then((answer) => {
        if (answer.ok) location.replace(here);
        else sessionStorage.setItem(refused, zone);
      }).catch(() => { /* the same */ });
    }
  } catch { /* no storage: the zone of the address stays */ }

  // Takes the parts with this attribute from the page as it is now.
  const renew = async (attribute) => {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) return false;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelectorAll(`[${attribute}]`);
    document.querySelectorAll(`[${attribute}]`).forEach((old, at) => {
      if (!old.contains(document.activeElement) && fresh[at]) old.replaceWith(fresh[at]);
    });
    return true;
  };

  if (document.querySelector("[data-live]")) {
    const state = document.getElementById("state");
    const say = (text) => { if (state.textContent !== text) state.textContent = text; };
    let waiting = false;
    const soon = () => {
      if (waiting || document.hidden) return;
      waiting = true;
      setTimeout(() => renew("data-live").catch(() => false).finally(() => { waiting = false; }), 1000);
    };
    let events;
    const listen = () => {
      events = new EventSource(`${up}api/events`);
      events.addEventListener("call", soon);
      events.onopen = () => say("Connected: calls appear as they end.");
      events.onerror = () => {
        // A browser gives up where it is answered, but refused: the server may be starting, or ask
        // for another sign-in, which a new look at the page tells.
        if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
        say("Not connected; trying again. If that lasts, open the page anew.");
      };
    };
    listen();
    setInterval(soon, 5000);
    document.addEventListener("visibilitychange", soon);
    addEventListener("pagehide", () => events.close());
    addEventListener("pageshow", (shown) => { if (shown.persisted) listen(); });
  }

  const fresh = document.querySelector("[data-fresh]");
  if (fresh) setInterval(() => { if (!document.hidden) renew("data-fresh").catch(() => false); }, 1000 * fresh.dataset.fresh);

  const verify = document.querySelector("[data-verify]");
  if (verify) verify.addEventListener("click", (click) => {
    click.preventDefault();
    const to = document.getElementById("verifying");
    if (to.firstChild && to.querySelector("progress")) return;
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", "Verifying");
    to.replaceChildren(bar);
    const line = (text) => { const p = document.createElement("p"); p.textContent = text; to.append(p); };
    const events = new EventSource(`${up}api/verify`);
    events.addEventListener("progress", (event) => {
      const one = JSON.parse(event.data);
      bar.max = Math.max(1, one.total);
      bar.value = one.done;
    });
    events.addEventListener("result", (event) => {
      const one = JSON.parse(event.data).result;
      events.close();
      to.replaceChildren();
      line(`${one.ok ? "Sound: nothing acknowledged is lost, nothing is damaged." : "Not sound."} ${one.records} records of ${one.writers} writers; ${one.lost} lost.`);
      one.sentences.concat(one.cannot_prove).forEach(line);
    });
    events.addEventListener("error", (event) => {
      events.close();
      to.replaceChildren();
      line(event.data ? JSON.parse(event.data).error : "The connection ended; try again.");
    });
  });
})();
