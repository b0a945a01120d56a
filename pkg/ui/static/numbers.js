// Each number opens what it counts, its window, and the commands that get it. A number is a marked element within a section
// with data-source, which names the element with the window and the commands.

const pop = document.getElementById("number");
const [value, sentence, period, , commands] = pop.children;
const marked = "[data-n], td.num, dd";

/** @param {Element} part @returns {string} */
const words = (part) => (part?.textContent ?? "").replace(/\s+/g, " ").trim();

/** The text of a part as it is read, without what only belongs to the screen or to a screen reader. */
function plain(part) {
  const copy = part.cloneNode(true);
  copy.querySelectorAll("details, details ~ a, .more, .keys, .hide, .sw").forEach((e) => e.remove());
  return words(copy);
}

/** The element with the window and the commands of a number. */
const sourceOf = (part) => document.getElementById(part.closest("[data-source]")?.dataset.source ?? "");

/** @param {Element} group @returns {Element[]} its numbers; not those within a link or a name */
const numbersOf = (group) => [...group.querySelectorAll(marked)].filter((e) =>
  /\d|–/.test(e.textContent) && e.closest("[data-source]") === group && !e.closest("a, th, summary, label, button:not(.n)") && !e.querySelector("[data-n]"));

/** The header of a cell, which may be as wide as several columns. */
function headerOf(cell) {
  let at = 0;
  for (const other of cell.parentElement.cells) {
    if (other === cell) break;
    at += other.colSpan;
  }
  return [...(cell.closest("table").tHead?.rows[0].cells ?? [])].find((header) => (at -= header.colSpan) < 0);
}

/** A sentence that says what a number counts: that of its column, or the sentence in which it stands. */
function counts(number) {
  const cell = number.closest("td");
  const says = (number.closest("[data-says]") ?? (cell && headerOf(cell)))?.dataset.says;
  if (!says) return plain(number.closest("p, li, td, dd, h1, h2, div"));
  const row = cell && words(cell.parentElement.querySelector("th code, th, .key"));
  const of = cell?.closest("tbody")?.dataset.of;
  const names = {row: `\u2068${row}\u2069`, of}; // a key may be written from right to left
  return says.replace(/\{(row|of)\}/g, (_, name) => names[name]); // a key may have {of} and $&
}

/** Shows the popover at a part of the page. */
function show(part, title, text, source) {
  value.textContent = title;
  sentence.textContent = text;
  period.textContent = plain(source);
  commands.replaceChildren();
  for (const menu of source.querySelectorAll("details")) {
    const command = document.createElement("pre");
    command.textContent = menu.querySelector(".note").textContent;
    command.tabIndex = 0;
    command.setAttribute("aria-label", words(menu.querySelector("summary")));
    commands.append(words(menu.querySelector("summary")), command);
  }
  (part.closest("dialog") ?? document.body).append(pop); // behind a dialog, nothing can be used
  pop.showPopover();
  const at = part.getBoundingClientRect();
  const fits = at.bottom + pop.offsetHeight + 8 <= innerHeight || at.top < pop.offsetHeight + 8;
  const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - pop.offsetWidth - 8));
  pop.style.left = `${scrollX + left}px`;
  pop.style.top = `${scrollY + (fits ? at.bottom + 4 : at.top - pop.offsetHeight - 4)}px`;
  pop.focus();
}

/** Makes a number the one of its group that Tab reaches. */
function reach(number, group) {
  for (const old of group.querySelectorAll("button.n")) old.replaceWith(...old.childNodes);
  const button = document.createElement("button");
  Object.assign(button, { className: "n", type: "button" });
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-describedby", "number-keys");
  button.append(...number.childNodes);
  number.append(button);
  return button;
}

/** Gives each list and table with numbers one of them to reach by Tab. Without a source, nothing opens. */
function reachAll() {
  for (const group of document.querySelectorAll("[data-source]")) {
    if (group.querySelector("button.n") || !sourceOf(group)) continue;
    const [first] = numbersOf(group);
    if (first) reach(first, group);
  }
}

/** The number next to another one in the direction of an arrow: by the order of reading, or by the place on the screen. */
function neighbor(numbers, from, key) {
  const at = numbers.indexOf(from);
  if (key === "Home") return numbers[0];
  if (key === "End") return numbers.at(-1);
  if (key === "ArrowLeft") return numbers[at - 1];
  if (key === "ArrowRight") return numbers[at + 1];
  const boxes = new Map(numbers.map((e) => [e, e.getBoundingClientRect()]));
  const here = boxes.get(from);
  const beyond = numbers.filter((e) => (key === "ArrowDown" ? boxes.get(e).top >= here.bottom : boxes.get(e).bottom <= here.top));
  const distance = (e) => Math.abs(boxes.get(e).top - here.top) * 10_000 + Math.abs(boxes.get(e).right - here.right);
  return beyond.sort((a, b) => distance(a) - distance(b))[0];
}

document.addEventListener("click", (event) => {
  if (event.detail && !getSelection().isCollapsed) return; // a mouse selected a number, perhaps to copy it
  const chart = event.target.closest?.(".chart");
  if (chart && !event.target.closest("a")) return bucket(chart, event.target.closest("g.bucket"));
  const group = event.target.closest?.("[data-source]");
  const number = event.target.closest?.(marked);
  if (!number || !group || !sourceOf(number) || !numbersOf(group).includes(number)) return;
  const button = event.target.closest("button.n") ?? reach(number, group);
  button.focus({ preventScroll: true });
  show(button, words(number), counts(number), sourceOf(number));
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches?.(".chart")) {
    return bucket(event.target, event.target.querySelector(".at")?.closest("g.bucket"));
  }
  const button = event.target.closest?.("button.n");
  if (!button || event.ctrlKey || event.metaKey || event.altKey || !/^(Arrow|Home|End)/.test(event.key)) return;
  event.preventDefault();
  const group = button.closest("[data-source]");
  const next = neighbor(numbersOf(group), button.parentElement, event.key);
  if (next) reach(next, group).focus();
});

/** Opens a bar of a chart, or the chart. */
function bucket(chart, bar) {
  const [title, ...text] = (bar?.dataset.read ?? chart.getAttribute("aria-label")).split(": ");
  const source = sourceOf(chart);
  if (source) show(bar ?? chart, title, text.join(": "), source);
}

pop.addEventListener("toggle", (event) => { if (event.newState === "closed") document.body.append(pop); });
new MutationObserver(reachAll).observe(document.body, { childList: true, subtree: true });
reachAll();
