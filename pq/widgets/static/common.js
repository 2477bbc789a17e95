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

function badge() {
  return el("span", { class: "pq-badge" }, el("span", { class: "pq-glyph", "aria-hidden": "true" }), el("span"));
}

function setBadge(node, status, label = status) {
  attribute(node, "data-status", status);
  text(node.firstChild, GLYPH[status] ?? "•");
  text(node.lastChild, label);
}

// A table whose columns are {name, class, make(cell), show(cell, item, now)}.
function table(caption, testid, columns, empty) {
  const body = el("tbody");
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: c.class }, c.head ?? c.name)));
  const none = el("p", { class: "pq-empty" }, empty);
  const grid = el("table", { "data-testid": testid }, el("caption", {}, caption), el("thead", {}, head), body);
  const root = el("div", { class: "pq-scroll" }, grid, none);
  const create = () => {
    const row = el("tr");
    for (const column of columns) {
      const cell = el("td", { class: column.class });
      column.make?.(cell, row);
      row.append(cell);
    }
    return row;
  };
  const update = (items, now) => {
    keyed(body, items, (item) => item.id ?? item.name, create, (row, item) => {
      columns.forEach((column, index) => column.show(row.children[index], item, now, row));
    });
    none.hidden = items.length > 0;
  };
  return { root, body, update };
}

const long = (read) => (cell, item) => {
  text(cell.firstChild, read(item));
  attribute(cell, "title", read(item) || null);
};
const clamp = (cell) => cell.append(el("span", { class: "pq-clamp" }));
const short = (cell) => cell.append(el("span", { class: "pq-name" }));
const plain = (read) => (cell, item, now) => text(cell, read(item, now));

function age(job, now) {
  if (job.status === "scheduled") return job.due > now ? `due in ${duration(job.due - now)}` : "due now";
  if (job.status === "processing") return `for ${duration(now - (job.started ?? job.created))}`;
  if (job.finished) return `${duration(now - job.finished)} ago`;
  return `waits ${duration(now - job.created)}`;
}

const JOB = {
  id: { name: "Job", class: "pq-number", show: plain((job) => job.id) },
  status: { name: "Status", make: (cell) => cell.append(badge()), show: (cell, job) => setBadge(cell.firstChild, job.status) },
  task: { name: "Task", class: "pq-strong", make: short, show: long((job) => job.task) },
  queue: { name: "Queue", make: short, show: long((job) => job.queue) },
  parameters: { name: "Parameters", class: "pq-code", make: clamp, show: long((job) => job.parameters) },
  consumer: {
    name: "Consumer", make: short,
    show: long((job) => (job.assigned ? `→ ${job.assigned}` : job.consumer ?? "")),
  },
  attempt: { name: "Attempt", class: "pq-number", show: plain((job) => `${job.attempt} of ${job.attempts}`) },
  age: {
    name: "When",
    show(cell, job, now) {
      text(cell, age(job, now));
      attribute(cell, "title", `created ${clock(job.created)}`);
    },
  },
  note: {
    name: "Note",
    class: "pq-note",
    make(cell) {
      const bar = el("progress", { max: 1, "aria-label": "progress" });
      cell.append(bar, el("span", { class: "pq-clamp" }));
    },
    show(cell, job) {
      const [bar, words] = cell.children;
      bar.hidden = job.status !== "processing" || job.progress === null;
      bar.value = job.progress ?? 0;
      text(words, job.note);
      attribute(cell, "title", job.note || null);
      attribute(cell, "data-bad", job.status === "failed");
    },
  },
};

const LIVES = { live: ["completed", "live"], stopping: ["scheduled", "stopping"], dead: ["failed", "dead"] };

function consumersTable() {
  return table("Consumers", "consumers", [
    { name: "Consumer", class: "pq-strong", make: short, show: long((c) => c.name) },
    { name: "State", make: (cell) => cell.append(badge()), show: (cell, c) => setBadge(cell.firstChild, ...LIVES[c.state]) },
    { name: "Doing", make: clamp, show: long((c) => c.doing) },
    { name: "Queues", make: clamp, show: long((c) => c.queues) },
    { name: "Where", make: clamp, show: long((c) => c.where) },
    { name: "Runs for", show: plain((c, now) => duration(now - c.started)) },
    { name: "Heard", show: plain((c, now) => `${duration(now - c.heartbeat)} ago`) },
  ], "No consumer is running. Start one with: pq consume");
}

function chart() {
  const W = 720, H = 150, LEFT = 44, BOTTOM = 20, TOP = 8;
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", class: "pq-chart", "data-testid": "throughput" });
  const name = svg("title");
  const hatch = svg("pattern", { id: `pq-hatch-${Math.random().toString(36).slice(2)}`, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  hatch.append(svg("rect", { width: 5, height: 5, class: "pq-hatch-ground" }), svg("rect", { width: 2, height: 5, class: "pq-hatch-line" }));
  const grid = svg("g", { class: "pq-axis" });
  const bars = svg("g");
  picture.append(name, hatch, grid, bars);
  const lines = [0, 0.5, 1].map((share) => {
    const y = TOP + (H - BOTTOM - TOP) * (1 - share);
    const label = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
    grid.append(svg("line", { x1: LEFT, x2: W, y1: y, y2: y }), label);
    return { share, label };
  });
  [["60 min ago", LEFT, "start"], ["30", (LEFT + W) / 2, "middle"], ["now", W, "end"]].forEach(([words, x, anchor]) => {
    const label = svg("text", { x, y: H - 5, "text-anchor": anchor });
    label.textContent = words;
    grid.append(label);
  });
  const update = (points) => {
    const most = points.reduce((top, [, done, failed]) => Math.max(top, done + failed), 0);
    const full = round(most);
    const step = (W - LEFT) / Math.max(points.length, 1);
    const scale = (H - BOTTOM - TOP) / full;
    for (const { share, label } of lines) text(label, number(full * share));
    while (bars.children.length < points.length) {
      const group = svg("g");
      group.append(svg("rect", { class: "pq-done" }), svg("rect", { fill: `url(#${hatch.id})` }), svg("title"));
      bars.append(group);
    }
    points.forEach(([minute, done, failed], index) => {
      const [good, bad, hint] = bars.children[index].children;
      const place = { x: LEFT + index * step + 1, width: Math.max(step - 2, 1) };
      for (const [rect, from, height] of [[good, 0, done], [bad, done, failed]]) {
        const values = { ...place, y: H - BOTTOM - (from + height) * scale, height: height * scale };
        for (const [key, value] of Object.entries(values)) attribute(rect, key, value.toFixed(1));
      }
      text(hint, `${new Date(minute * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}: ${done} completed, ${failed} failed`);
    });
    const [done, failed] = points.reduce((sum, point) => [sum[0] + point[1], sum[1] + point[2]], [0, 0]);
    text(name, `Jobs finished per minute in the last hour: ${number(done)} completed, ${number(failed)} failed`);
  };
  return { root: picture, update };
}

// The top of the axis: 2, 4, 10, 20, 40, 100 …, so that its half is a whole number too.
function round(most) {
  for (let unit = 1; ; unit *= 10) for (const step of [2, 4, 10]) if (most <= step * unit) return step * unit;
}

function figure(label, testid) {
  const value = el("strong", { "data-testid": testid });
  const root = el("div", { class: "pq-figure" }, el("span", {}, label), value);
  return { root, set: (words) => text(value, words) };
}

function toasts() {
  const root = el("div", { class: "pq-toasts", role: "status", "aria-live": "polite", "data-testid": "toasts" });
  const show = (words, bad) => {
    const toast = el("div", { class: "pq-toast", "data-bad": bad }, el("span", {}, words));
    toast.append(el("button", { type: "button", "aria-label": "Dismiss", onclick: () => toast.remove() }, "×"));
    root.append(toast);
    if (!bad) setTimeout(() => toast.remove(), 8000); // an error stays until it was seen
  };
  return { root, show };
}

// The frame of a page: heading with the live mark, banner, toasts, the beat that keeps the kernel reading.
function page(model, node, other) {
  const mark = badge();
  mark.dataset.testid = "live";
  const where = el("span", { class: "pq-address", "data-testid": "address" });
  const link = IN_VOILA ? [el("a", { href: `${other}.ipynb` }, other === "ops" ? "Ops page" : "Admin page")] : [];
  const banner = el("div", { class: "pq-banner", role: "alert", "data-testid": "banner", hidden: true });
  const messages = toasts();
  const root = el("div", { class: "pq" }, el("div", { class: "pq-top" }, where, ...link, mark), banner);
  node.append(root, messages.root);
  let heard = Date.now();
  const beat = () => model.send({ verb: "beat", looking: document.visibilityState !== "hidden" });
  const watch = () => {
    const lost = document.visibilityState !== "hidden" && Date.now() - heard > SILENT_AFTER;
    setBadge(mark, lost ? "failed" : "completed", lost ? "disconnected" : "live");
    const problem = lost ? "The page is cut off from its kernel: what it shows is old. Reload it." : model.get("problem");
    banner.hidden = !problem;
    text(banner, problem);
  };
  const onNow = () => { heard = Date.now(); watch(); };
  const onMessage = (message) => { if (message.kind === "toast") messages.show(message.text, message.bad); };
  const onVisible = () => { heard = Date.now(); beat(); };
  model.on("change:now", onNow);
  model.on("change:problem", watch);
  model.on("msg:custom", onMessage);
  document.addEventListener("visibilitychange", onVisible);
  const timers = [setInterval(beat, 5000), setInterval(watch, 1000)];
  beat();
  const draw = (update) => {
    const redraw = () => {
      const view = model.get("view");
      if (!view.counts) return;
      text(where, view.address);
      update(view, model.get("now"));
      node.dataset.ready = "1";
    };
    model.on("change:view", redraw);
    model.on("change:now", redraw);
    redraw();
    return () => {
      timers.forEach(clearInterval);
      document.removeEventListener("visibilitychange", onVisible);
      model.off("change:view", redraw);
      model.off("change:now", redraw);
      model.off("change:now", onNow);
      model.off("change:problem", watch);
      model.off("msg:custom", onMessage);
    };
  };
  watch();
  return { root, draw, toast: messages.show };
}
