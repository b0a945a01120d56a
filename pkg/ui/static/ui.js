// What makes the pages quicker to use. Every page works without it: the server renders whole pages, and this module asks for
// the same pages and takes parts of them.

const root = document.body.dataset.root ?? "./";
const { lang } = document.documentElement;

/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement[]} */
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Sends a form as its button would, and gives the page that comes back; its status is 204 if the form is saved. */
async function submitted(form, button, signal) {
  const body = new URLSearchParams(new FormData(form));
  body.set("script", "1");
  if (button?.name) body.set(button.name, button.value);
  const response = await fetch(form.action, {
    method: "POST", body, signal, redirect: "manual", headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  return { response, page: new DOMParser().parseFromString(await response.text(), "text/html") };
}

/** The page at an address; null if it was aborted, or the server does not answer: the next key or click tries again. */
async function got(address, signal) {
  try {
    const response = await fetch(address, { signal });
    return new DOMParser().parseFromString(await response.text(), "text/html");
  } catch {
    return null;
  }
}

// The zone of the browser, for the pages to come.
function noteZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!zone || document.cookie.includes(`flagr_tz=${encodeURIComponent(zone)}`)) return;
  const path = new URL(root, location.href).pathname;
  document.cookie = `flagr_tz=${encodeURIComponent(zone)}; path=${path}; max-age=34560000; samesite=lax`;
}

// Menus close on Escape, on a click elsewhere, and when another opens.
function menus() {
  document.addEventListener("click", (event) => {
    for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of all("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

// The list filters while typing and choosing.
function filters() {
  const form = document.getElementById("filters");
  if (!form) return;
  let timer;
  let running;
  const apply = async () => {
    running?.abort(); // of two answers the newer one counts, whichever comes first
    running = new AbortController();
    const query = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...query]) if (value === "" || (name === "days" && value === "7")) query.delete(name);
    if (all("[name=cols]", form).every((box) => box.checked)) query.delete("cols");
    const address = `./${query.size ? `?${query}` : ""}`;
    const page = await got(address, running.signal);
    if (!page) return;
    history.replaceState(null, "", address);
    const main = document.getElementById("main");
    const fresh = page.getElementById("main");
    if (!fresh?.querySelector("#filters")) return location.reload();
    while (form.nextSibling) form.nextSibling.remove();
    let node = fresh.querySelector("#filters").nextSibling;
    while (node) {
      const next = node.nextSibling;
      main.append(node);
      node = next;
    }
    for (const selector of ["h1", ".under"]) main.querySelector(selector).replaceWith(fresh.querySelector(selector));
  };
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(apply, event.target.id === "q" ? 200 : 0);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    apply();
  });
}

// Choices that submit themselves.
function choices() {
  for (const form of all("form[data-submit]")) form.addEventListener("change", () => form.requestSubmit());
}

// A form is sent once, also if its button is clicked twice. After a while it may be sent again: the browser may have been stopped.
function once() {
  const sent = new Map();
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || event.target.method !== "post") return;
    if (event.timeStamp - sent.get(event.target) < 10_000) event.preventDefault();
    else sent.set(event.target, event.timeStamp);
  });
  window.addEventListener("pageshow", () => sent.clear());
  // The browser asks whether to leave the page. If the answer is no, the form was not sent. If it is yes, it asks again before
  // a second submit.
  window.addEventListener("beforeunload", (event) => { if (event.defaultPrevented) sent.clear(); });
}

// Shows the part of a page that asks something as a dialog over this one.
function ask(part, closed) {
  const dialog = document.createElement("dialog");
  dialog.append(part);
  document.body.append(dialog);
  dialog.setAttribute("aria-labelledby", part.querySelector("[id$=-title]")?.id ?? "");
  dialog.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    if (!close && event.target !== dialog) return;
    event.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed?.();
  });
  dialog.showModal();
  part.querySelector("[id$=-title]")?.focus();
  return dialog;
}

// Links with data-dialog show their page as a dialog; nothing is sent but the question.
function dialogs() {
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-dialog]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const part = (await got(link.href))?.querySelector("[data-review]");
    if (!part) return location.assign(link.href);
    link.closest("details")?.removeAttribute("open");
    const form = part.querySelector("form");
    form.action = new URL(form.getAttribute("action"), link.href).href;
    ask(part, () => (link.closest("details")?.querySelector("summary") ?? link).focus());
  });
}

// Copies a link instead of following it, and announces that. Browsers offer their clipboard on secure origins only.
function copies() {
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-copy]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    const menu = link.closest("details");
    try {
      await navigator.clipboard.writeText(link.href);
    } catch {
      const field = document.createElement("textarea");
      field.value = link.href;
      menu.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    menu.open = false;
    menu.querySelector("summary").focus();
    menu.parentElement.querySelector("[role=status]").textContent = link.dataset.copy;
  });
}

// The editor. The server checks the form while it is typed, and its answer replaces hints, bars and the list of changes.
function editor() {
  const form = document.querySelector("form[data-edit]");
  if (!form || form.querySelector("fieldset:disabled")) return;
  const began = document.querySelector("[data-live=what] b") !== null;
  let dirty = began;
  let running;
  let timer;
  let edits = 0; // how often a field was changed
  const main = document.getElementById("main");
  const asked = []; // buttons that wait for their answers; the first of them is with the server
  const savebar = form.querySelector("[data-savebar]");
  const show = () => { savebar.hidden = !dirty; };
  show();

  const patch = (page) => {
    dirty = page.querySelector("[data-live=what] b") !== null;
    show();
    for (const part of all("[data-live]", page)) {
      const here = document.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
      if (!here || here.isEqualNode(part)) continue;
      here.hidden = part.hidden;
      here.replaceChildren(...part.childNodes);
    }
    for (const field of all("[data-field]")) {
      const fresh = page.querySelector(`[data-field][name="${CSS.escape(field.name)}"]`);
      if (!fresh) continue;
      field.className = fresh.className;
      for (const name of ["aria-invalid", "aria-describedby"]) {
        if (fresh.hasAttribute(name)) field.setAttribute(name, fresh.getAttribute(name));
        else field.removeAttribute(name);
      }
    }
  };
  const check = async () => {
    running?.abort();
    running = new AbortController();
    try {
      const { page } = await submitted(form, { name: "do", value: "check" }, running.signal);
      if (page.querySelector("form[data-edit]")) patch(page);
    } catch { /* aborted, or the server is away: the next key or Save tries again */ }
  };
  const changed = (event) => {
    if (!event.target.matches("[data-field]")) return;
    dirty = true;
    edits++;
    show();
    clearTimeout(timer);
    timer = setTimeout(check, 250);
  };
  form.addEventListener("input", changed);
  all("[data-field][form=edit]").forEach((field) => field.addEventListener("input", changed));

  // Takes another state of the whole form, and puts the focus where the button leads.
  const replace = (page, button) => {
    const focus = focusAfter(button);
    const fresh = page.querySelector("form[data-edit]");
    const scroll = window.scrollY;
    for (const id of ["segments", "variants", "settings"]) form.querySelector(`#${id}`).replaceWith(fresh.querySelector(`#${id}`));
    form.elements.snapshot.value = fresh.elements.snapshot.value;
    patch(page);
    window.scrollTo(0, scroll);
    (document.querySelector(focus) ?? document.querySelector("#segments [data-field]"))?.focus();
  };
  const announce = (page) => {
    document.getElementById("errors")?.remove();
    const errors = page.getElementById("errors");
    if (errors) form.before(errors);
    return errors;
  };
  // Sends the form with a button. What is typed before the answer comes would be lost with it, so the form is sent again.
  const answer = async (button) => {
    for (;;) {
      clearTimeout(timer);
      running?.abort();
      const sent = edits;
      const { response, page } = await submitted(button.form, button);
      if (response.status === 204) return null;
      if (sent === edits) return page;
    }
  };
  const tell = (text) => {
    document.getElementById("errors")?.remove();
    const note = document.createElement("div");
    Object.assign(note, { id: "errors", className: "notice bad", role: "alert", textContent: text });
    note.tabIndex = -1;
    form.before(note);
    note.focus();
  };
  // Carries out a button. It is false if the buttons that wait behind it must not be carried out any more.
  const carryOut = async (button) => {
    let page;
    try {
      page = await answer(button);
    } catch { // no answer: what is typed stays
      main.inert = false;
      tell(form.dataset.away);
      return false;
    }
    if (!page) { // saved
      dirty = false;
      location.assign(form.action);
      return false;
    }
    if (!page.querySelector("form[data-edit]")) { // the server says why it cannot
      main.inert = false;
      const ours = page.getElementById("main"); // else it is the answer of a login, or of a proxy
      tell(ours ? all("h1, .lead, .box.bad", ours).map((part) => part.textContent).join(". ") : form.dataset.refused);
      return false;
    }
    if (!changesParts(button.value)) main.inert = false;
    replace(page, button);
    const errors = announce(page);
    const part = page.querySelector("[data-review]");
    if (part) ask(part, () => form.querySelector(".savebar .primary")?.focus());
    else (errors?.querySelector("li a") ?? errors)?.focus();
    return true;
  };
  // Buttons that are pressed before an answer comes wait for their turn. Behind a review or a save the page takes no input: what is
  // typed then would be in neither the answer nor the database.
  const press = async (pressed) => {
    if (main.inert) return;
    asked.push({ name: pressed.name, value: pressed.value, form: pressed.closest("form") ?? form });
    main.inert = !changesParts(pressed.value);
    if (asked.length > 1) return;
    while (asked.length) {
      const button = asked[0];
      const goOn = await carryOut(button);
      const waiting = asked.splice(0).slice(1);
      if (!goOn) return;
      for (const next of waiting) {
        next.value = follow(button.value, next.value);
        if (next.value) asked.push(next);
      }
    }
  };
  // The page stays until the server has saved the form, so that nothing is lost when it does not answer.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button?.name !== "do" || !event.target.action.endsWith("/targeting")) return;
    if (button.hasAttribute("formaction")) {
      dirty = false;
      return;
    }
    event.preventDefault();
    for (const dialog of all("dialog[open]")) dialog.close();
    press(button);
  });
  const undo = form.querySelector("[data-undo]");
  undo?.addEventListener("click", () => { dirty = false; });
  window.addEventListener("beforeunload", (event) => { if (dirty && document.contains(form)) event.preventDefault(); });

  // A page that came with a question, such as an older version to put back, asks it.
  const part = document.querySelector("#main > [data-review]");
  if (part) ask(part, () => form.querySelector(".savebar .primary")?.focus());

  form.addEventListener("keydown", (event) => {
    const segment = event.target.closest("[data-segment]");
    if (segment && event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      segment.querySelector(`button[value^="${event.key === "ArrowUp" ? "up" : "down"}."]:not(:disabled)`)?.click();
    }
  });
}

/** Whether a button changes the parts of the form, and nothing is asked or saved. */
const changesParts = (value) => /^(add|remove|up|down|split|quote|unquote)\b/.test(value);

/**
 * What a button says that was pressed before another one was carried out: places of segments, constraints and variants may have
 * changed. It is null if the part that it is about is gone.
 */
function follow(carriedOut, value) {
  const [did, ...from] = carriedOut.split(".");
  const [name, ...to] = value.split(".");
  const ofVariants = name === "remove-variant";
  let level = -1; // which of the places is in the list that has changed
  if (did === "remove-variant") level = ofVariants ? 0 : -1;
  else if (did === "remove-constraint") level = to.length > 1 && to[0] === from[0] ? 1 : -1;
  else if (["remove-segment", "up", "down"].includes(did)) level = ofVariants || !to.length ? -1 : 0;
  if (level < 0) return value;
  const place = Number(to[level]);
  const at = Number(from.at(-1));
  if (did.startsWith("remove")) {
    if (place === at) return null;
    if (place > at) to[level] = place - 1;
  } else {
    const other = did === "up" ? at - 1 : at + 1;
    if (place === at) to[level] = other;
    else if (place === other) to[level] = at;
  }
  return [name, ...to].join(".");
}

/** The field to focus after a button has changed the form. */
function focusAfter(button) {
  const [name, ...at] = button.value.split(".");
  switch (name) {
    case "add-segment": return "#segments [data-segment]:nth-last-of-type(1) [data-field]";
    case "add-variant": return "#variants .variant-row:nth-last-of-type(2) [data-field]";
    case "add-constraint": return `[data-segment="${at[0]}"] .constraint:nth-last-of-type(2) [data-field]`;
    case "up": return `[data-segment="${Math.max(0, at[0] - 1)}"] button[value^="up."]:not(:disabled), [data-segment="${Math.max(0, at[0] - 1)}"] button[value^="down."]`;
    case "down": return `[data-segment="${+at[0] + 1}"] button[value^="down."]:not(:disabled), [data-segment="${+at[0] + 1}"] button[value^="up."]`;
    case "quote":
    case "unquote": return `[name="s.${at[0]}.c.${at[1]}.value"]`;
    case "split": return `[name="s.${at[0]}.d.0"]`;
    default: return `[data-segment="${at[0]}"] [data-field]`;
  }
}

// Tags are proposed one by one: those before the last comma stay.
function tags() {
  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!field.matches("[data-tags]")) return;
    const before = field.value.replace(/[^,]*$/, "");
    for (const option of field.list.options) {
      option.dataset.tag ??= option.value;
      option.value = before ? `${before} ${option.dataset.tag}` : option.dataset.tag;
    }
  });
}

// A key is checked while it is typed: its letters, and whether a flag has it.
function keys() {
  for (const input of all("[data-key]")) {
    const hint = input.form.querySelector("[data-key-hint]");
    const usual = hint.innerHTML;
    let timer;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        if (!input.value.trim()) return void (hint.innerHTML = usual);
        const fresh = (await got(`${root}key?key=${encodeURIComponent(input.value.trim())}`))?.querySelector("[data-key-hint]");
        if (!fresh) return;
        hint.className = fresh.className;
        hint.replaceChildren(...fresh.childNodes);
      }, 200);
    });
  }
}

// The cursor of a chart: arrow keys move it, and it reads out the bucket.
function charts() {
  for (const chart of all(".chart")) {
    const readout = chart.parentElement.querySelector(".readout");
    const buckets = all("g.bucket", chart);
    if (!readout || !buckets.length) continue;
    const usual = readout.textContent;
    let at = -1;
    const show = (i) => {
      buckets[at]?.querySelector(".cursor-bar").classList.remove("at");
      at = i;
      buckets[at]?.querySelector(".cursor-bar").classList.add("at");
      readout.textContent = buckets[at]?.dataset.read ?? usual;
    };
    chart.tabIndex = 0;
    buckets.forEach((bucket, i) => bucket.addEventListener("pointerenter", () => show(i)));
    chart.addEventListener("pointerleave", () => show(-1));
    chart.addEventListener("blur", () => show(-1));
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      show(at < 0 && step === -1 ? buckets.length - 1 : Math.min(buckets.length - 1, Math.max(0, at + step)));
    });
  }
}

// The live tail: the newest evaluations, from the stream of the API. Pausing keeps the connection, since the hashes of
// entities change with it. A hidden page closes it, because the server has few of them.
function tail() {
  const section = document.querySelector("[data-tail]");
  if (!section) return;
  const word = (name) => section.querySelector(`[data-word="${CSS.escape(name)}"]`)?.textContent ?? name;
  // The reason in the language of the page.
  const why = (e) => (e.segmentID ? word("bucket").replace("{bucket}", e.bucket).replace("{rollout}", e.rolloutPercent) : word(`why ${e.outcome}`));
  const status = section.querySelector("[data-tail-status]");
  const pause = section.querySelector("[data-tail-pause]");
  const body = section.querySelector("tbody");
  const most = Number(section.dataset.rows);
  const clock = new Intl.DateTimeFormat(lang, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
    timeZone: document.body.dataset.utc === "true" ? "UTC" : undefined,
  });
  let source;
  let waiting = []; // rows that are not shown yet, the oldest first
  let received = 0;
  let skipped = 0;
  let said = 0; // when the counts were announced last
  const paused = () => pause.getAttribute("aria-pressed") === "true";
  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  const counts = () => say(word("count").replace("{n}", received.toLocaleString(lang)).replace("{skipped}", skipped.toLocaleString(lang)));

  const row = (e) => {
    const tr = document.createElement("tr");
    const texts = [clock.format(new Date(e.at)), e.variantKey || word(e.outcome), e.segmentID ? word(`segment ${e.segmentID}`) : "–", why(e), e.snapshotID ?? "–", e.entity];
    texts.forEach((text, i) => {
      const td = tr.insertCell();
      const within = (i === 1 && e.variantKey) || i === 5 ? td.appendChild(document.createElement("code")) : td;
      within.textContent = text;
      if (i === 1 && !e.variantKey) td.className = "muted";
    });
    return tr;
  };
  const show = () => {
    if (paused() || document.hidden) return;
    if (waiting.length) body.prepend(...waiting.reverse().map(row));
    waiting = [];
    while (body.rows.length > most) body.lastChild.remove();
    if (received && Date.now() - said >= 5000) { // not with every row: it is read aloud
      said = Date.now();
      counts();
    }
  };
  const open = () => {
    say(word("connecting"));
    source = new EventSource(section.dataset.tail);
    source.addEventListener("open", () => { say(word("waiting")); said = 0; });
    source.addEventListener("evaluation", (event) => {
      received++;
      waiting.push(JSON.parse(event.data));
      if (waiting.length > most) waiting.shift();
    });
    source.addEventListener("skipped", (event) => { skipped += Number(event.data); });
    source.addEventListener("error", () => say(word(source.readyState === EventSource.CLOSED ? "refused" : "lost")));
  };
  pause.addEventListener("click", () => {
    pause.setAttribute("aria-pressed", String(!paused()));
    if (paused()) return say(word("paused"));
    said = 0;
    if (received) show();
    else say(word("waiting"));
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close();
    else if (source.readyState === EventSource.CLOSED) open();
  });
  section.querySelector("[data-tail-live]").hidden = false;
  setInterval(show, 250);
  open();
}

// Single keys, which do nothing in fields and can be switched off.
function shortcuts() {
  let before = "";
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      const save = document.querySelector(".savebar:not([hidden]) .primary");
      if (save) {
        event.preventDefault();
        save.click();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]")) return;
    if (localStorage.getItem("flagr.keys") === "off" || document.querySelector("dialog[open]")) return;
    const key = event.key;
    const pair = before + key;
    before = key === "g" ? "g" : "";
    const rows = all(".flags .key");
    const current = rows.indexOf(document.activeElement);
    const pages = { gf: "", gu: "unknown", gs: "server" };
    const tabs = all(".tabs.flag a");
    if (pair in pages) location.assign(root + pages[pair]);
    else if (key === "/" && document.getElementById("q")) document.getElementById("q").focus();
    else if (key === "j" && rows.length) rows[Math.min(rows.length - 1, current + 1)].focus();
    else if (key === "k" && rows.length) rows[Math.max(0, current - 1)].focus();
    else if (/^[1-6]$/.test(key) && tabs[key - 1]) location.assign(tabs[key - 1].href);
    else if (key === "t" && tabs.length) location.assign(tabs.find((tab) => tab.href.endsWith("/try"))?.href ?? location.href);
    else if (key === "p" && document.querySelector("[data-tail-pause]")) document.querySelector("[data-tail-pause]").click();
    else if (key === "?") location.assign(`${root}keys`);
    else return;
    event.preventDefault();
  });
  const box = document.querySelector("[data-keys-switch]");
  if (box) {
    box.hidden = false;
    const input = box.querySelector("input");
    input.checked = localStorage.getItem("flagr.keys") !== "off";
    input.addEventListener("change", () => localStorage.setItem("flagr.keys", input.checked ? "on" : "off"));
  }
}

// On a phone, the row of tabs may be wider than the page.
function showTab() {
  for (const tab of all(".tabs [aria-current]")) tab.parentElement.scrollLeft = tab.offsetLeft - (innerWidth - tab.offsetWidth) / 2;
}

function start() {
  all("[data-noscript]").forEach((part) => part.remove());
  noteZone();
  showTab();
  filters();
  editor();
  keys();
  tags();
  charts();
  choices();
  tail();
}

start();
once();
menus();
dialogs();
copies();
shortcuts();
