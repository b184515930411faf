// What every page does with a script; without one, pages work all the same.

import { start } from "./live.js";

// A button that does something weighty asks once: the first press changes its words.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-sure]");
  if (!button || button.dataset.asked) return;
  event.preventDefault();
  const words = button.textContent;
  button.dataset.asked = "yes";
  button.textContent = button.dataset.sure;
  setTimeout(() => {
    delete button.dataset.asked;
    button.textContent = words;
  }, 4000);
});

// Copies the command that mends something.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
});

// Filters the rows of a table as the reader types.
for (const input of document.querySelectorAll("input[data-filter]")) {
  const apply = () => {
    const wanted = input.value.trim().toLowerCase();
    const rows = document.querySelectorAll(`#${input.dataset.filter} tbody tr`);
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  };
  input.addEventListener("input", apply);
  new MutationObserver(apply).observe(document.getElementById(input.dataset.filter), {
    childList: true,
    subtree: true,
  });
}

// A slash goes to the page's search box.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const box = document.querySelector("[data-search]");
  if (!box) return;
  event.preventDefault();
  box.focus();
});

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 3000);
  });
}

start();
