// Keeps a page live: the server says by events what changed, and the page asks for itself again.
// Regions marked `data-live` (with an id) are replaced; what the reader opened or focused stays so.

const names = new Set(
  [...document.querySelectorAll("[data-live]")].flatMap((region) => region.dataset.live.split(" ")),
);
const lamp = document.getElementById("lamp");
let asking = false;
let again = false;

function show(state, text) {
  if (!lamp) return;
  lamp.dataset.state = state;
  lamp.querySelector("span").textContent = text;
}

function openedIn(region) {
  return new Set([...region.querySelectorAll("details[open][id]")].map((details) => details.id));
}

function replace(region, fresh) {
  if (region.innerHTML === fresh.innerHTML) return;
  const active = document.activeElement;
  const inside = region.contains(active) && active !== region;
  // Never under a reader's hands: a half-written comment is worth more than news.
  if (inside && active.matches("input, textarea, select")) return;
  const mark = inside ? active.id || active.getAttribute("href") : null;
  const opened = openedIn(region);
  const shut = new Set(
    [...region.querySelectorAll("details:not([open])[id]")].map((details) => details.id),
  );
  region.replaceChildren(...fresh.childNodes);
  for (const details of region.querySelectorAll("details[id]")) {
    if (opened.has(details.id)) details.open = true;
    if (shut.has(details.id)) details.open = false;
  }
  if (mark) {
    const again = [...region.querySelectorAll("a, button, summary")].find(
      (element) => element.id === mark || element.getAttribute("href") === mark,
    );
    if (again) again.focus({ preventScroll: true });
  }
}

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/login") {
      location.assign("/login");
      return;
    }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const region of document.querySelectorAll("[data-live]")) {
      const twin = fresh.getElementById(region.id);
      if (twin) replace(region, twin);
    }
  } catch {
    // The stream says that the server is gone, and opens again by itself.
  } finally {
    asking = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

export function start() {
  if (names.size === 0) {
    if (lamp) lamp.hidden = true;
    return;
  }
  const source = new EventSource("/events");
  source.addEventListener("open", () => {
    if (lamp && lamp.dataset.state === "lost") refresh();
    show("live", "Live");
  });
  source.addEventListener("error", () => show("lost", "Reconnecting"));
  for (const name of names) source.addEventListener(name, refresh);
  // Ages ("5 s ago") move on even when nothing happens.
  setInterval(refresh, 15000);
}
