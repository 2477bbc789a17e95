// What both pages share; Python sends this text in front of the page's own module.
// Everything that comes from a job goes in as text: nothing here parses markup.

const GLYPH = {
  blocked: "◌", scheduled: "◷", pending: "○", processing: "▶",
  completed: "✓", failed: "✕", cancelled: "⊘",
};
const STATUSES = Object.keys(GLYPH);
const IN_VOILA = document.body.dataset.voila === "voila"; // elsewhere the address belongs to somebody else
const SILENT_AFTER = 6000;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// Nodes are patched, never rebuilt: a click on a node that is replaced meanwhile would be lost.
function text(node, value) {
  const wanted = String(value ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

function keyed(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.id, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let node = known.get(id);
    known.delete(id);
    if (!node) {
      node = create(item);
      node.dataset.id = id;
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const node of known.values()) node.remove();
}

const whole = new Intl.NumberFormat("en");
const number = (value) => whole.format(value ?? 0);
const jobs = (count) => `${number(count)} job${count === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

const clock = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "");

// How long something took: shorter than a second matters here.
function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return seconds < 60 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : duration(seconds);
}

function bytes(size) {
  if (size === null || size === undefined) return "–";
  if (size < 1e6) return `${Math.ceil(size / 1e3)} kB`;
  return size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(2)} GB`;
}

// A number that leads to the admin page with that filter; elsewhere than in Voilà there is no such page.
const adminAddress = (filter) => {
  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value));
  return `admin.ipynb${query.size ? `?${query}` : ""}`;
};
const leading = (filter, attributes, ...children) =>
  IN_VOILA ? el("a", { href: adminAddress(filter), ...attributes }, ...children) : el("span", attributes, ...children);
function lead(node, filter) {
  if (IN_VOILA) attribute(node, "href", adminAddress(filter));
}

function badge() {
  return el("span", { class: "pq-badge" }, el("span", { class: "pq-glyph", "aria-hidden": "true" }), el("span"));
}

function setBadge(node, status, label = status) {
  attribute(node, "data-status", status);
  text(node.firstChild, GLYPH[status] ?? "•");
  text(node.lastChild, label);
}

// Messages that come and go. One with an `undo` offers it as long as Python accepts it.
function toasts(model) {
  const root = el("div", { class: "pq-toasts", role: "status", "aria-live": "polite", "data-testid": "toasts" });
  const show = (words, bad, undo) => {
    const toast = el("div", { class: "pq-toast", "data-bad": String(Boolean(bad)) }, el("span", {}, words));
    const away = () => toast.remove();
    if (undo) {
      const back = () => { away(); model.send({ verb: "undo", nonce: undo }); };
      toast.append(el("button", { type: "button", class: "pq-undo", "data-testid": "undo", onclick: back }, "Undo"));
    }
    toast.append(el("button", { type: "button", "aria-label": "Dismiss", onclick: away }, "×"));
    root.append(toast);
    while (root.children.length > 4) root.firstChild.remove();
    if (undo || !bad) setTimeout(away, undo ? 29000 : 8000); // an error stays until it was seen
  };
  return { root, show };
}

function themeButton() {
  const root = document.documentElement;
  const button = el("button", { type: "button", class: "pq-quiet", "data-testid": "theme", hidden: !IN_VOILA });
  const show = () => {
    const dark = root.dataset.pqTheme === "dark";
    text(button, dark ? "☀ Light" : "☾ Dark");
    attribute(button, "aria-label", dark ? "Use light colours" : "Use dark colours");
  };
  button.onclick = () => {
    root.dataset.pqTheme = root.dataset.pqTheme === "dark" ? "light" : "dark";
    localStorage.setItem("pq-theme", root.dataset.pqTheme);
    show();
  };
  show();
  return button;
}

// Whether the kernel answers; where it does not, why, and the way back. Only a served page can find out.
function lifeline(say, isBusy) {
  const kernel = () => document.body.dataset.kernelId
    ?? JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}").kernelId;
  const base = (document.body.dataset.baseUrl ?? "/").replace(/voila\/$/, "");
  let asking = false;
  const reload = (words) => {
    const last = Number(sessionStorage.getItem("pq-reloaded") ?? 0);
    if (isBusy()) return say(`${words} Close the dialog, and the page loads again.`);
    if (Date.now() - last < 15000) return say(`${words} It is loaded again in a moment.`);
    sessionStorage.setItem("pq-reloaded", String(Date.now()));
    window.location.reload();
  };
  const look = async (silent) => {
    if (!IN_VOILA) return say("The page is cut off from its kernel: what it shows is old. Run the cell again.");
    if (asking) return;
    asking = true;
    try {
      const answer = await window.fetch(`${base}api/kernels/${kernel()}`, { cache: "no-store", redirect: "manual" });
      if (answer.status === 200 && silent < 20000) say("The kernel is busy: what is shown is old.");
      else if (answer.status === 403) say("The server has forgotten this browser: what is shown is old. Open the page with its token again.");
      else reload("The page is cut off from its kernel: what it shows is old.");
    } catch {
      say("The server is gone: what is shown is old. The page comes back with the server.");
    } finally {
      asking = false;
    }
  };
  return { look };
}

// The frame of a page: heading with the live mark, banner, toasts, the beat that keeps the kernel reading.
function page(model, node, other) {
  const mark = badge();
  mark.dataset.testid = "live";
  const where = el("span", { class: "pq-address", "data-testid": "address" });
  const link = IN_VOILA ? [el("a", { href: `${other}.ipynb` }, other === "ops" ? "Ops page" : "Admin page")] : [];
  const banner = el("div", { class: "pq-banner", role: "alert", "data-testid": "banner", hidden: true });
  const messages = toasts(model);
  const tools = el("span", { class: "pq-tools" });
  const top = el("div", { class: "pq-top" }, where, ...link, tools, themeButton(), mark);
  const root = el("div", { class: "pq", "data-page": other }, top, banner, messages.root);
  node.append(root);
  let [heard, read, lost, why] = [Date.now(), Date.now(), false, ""];
  const isBusy = () => Boolean(root.querySelector("dialog[open]"));
  const line = lifeline((words) => { if (lost) { why = words; show(); } }, isBusy);
  let leaving = false; // the kernel ends with the page: what is sent after that fails
  const onLeave = () => { leaving = true; setTimeout(() => { leaving = false; }, 2000); };
  const beat = () => leaving || model.send({ verb: "beat", looking: document.visibilityState !== "hidden" });
  const show = () => {
    const problem = model.get("problem");
    const old = problem && `${problem}. What is shown is from ${new Date(read).toLocaleTimeString()}.`;
    setBadge(mark, lost ? "failed" : "completed", lost ? "disconnected" : "live");
    banner.hidden = !(lost ? why : problem);
    text(banner, lost ? why : old);
  };
  const watch = () => {
    const silent = Date.now() - heard;
    lost = document.visibilityState !== "hidden" && silent > SILENT_AFTER;
    if (lost) {
      why = why || "The page is cut off from its kernel: what it shows is old.";
      line.look(silent);
    } else why = "";
    show();
  };
  const onNow = () => {
    heard = Date.now();
    if (!model.get("problem")) read = heard;
    if (lost) watch();
  };
  const onMessage = (message) => {
    heard = Date.now();
    if (message.kind === "toast") messages.show(message.text, message.bad, message.undo);
  };
  const onVisible = () => { heard = Date.now(); beat(); };
  const bound = [["change:now", onNow], ["change:problem", show], ["msg:custom", onMessage]];
  bound.forEach(([name, handler]) => model.on(name, handler));
  document.addEventListener("visibilitychange", onVisible);
  window.addEventListener("beforeunload", onLeave);
  const timers = [setInterval(beat, 5000), setInterval(watch, 1000)];
  beat();
  const draw = (update) => {
    const redraw = () => {
      const view = model.get("view");
      if (!view.counts || isBusy()) return; // behind a dialog the page rests
      text(where, view.address);
      update(view, model.get("now"));
      node.dataset.ready = "1";
      document.getElementById("pq-first")?.remove();
    };
    model.on("change:view", redraw);
    model.on("change:now", redraw);
    root.addEventListener("close", redraw, true); // a dialog was closed: on with it
    redraw();
    return () => {
      timers.forEach(clearInterval);
      document.removeEventListener("visibilitychange", onVisible);
      window.removeEventListener("beforeunload", onLeave);
      bound.forEach(([name, handler]) => model.off(name, handler));
      model.off("change:view", redraw);
      model.off("change:now", redraw);
    };
  };
  show();
  return { root, tools, draw, isBusy, toast: messages.show };
}
