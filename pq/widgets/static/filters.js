// What is shown and what is selected: tabs, search with qualifiers, filters in the address. Follows table.js.

const FIELDS = ["status", "queue", "task", "consumer", "tag", "group", "since", "until", "finished", "order", "search"];
const ORDERS = { "": "Newest first", oldest: "Oldest first", finished: "Latest finished", due: "Next due", priority: "Highest priority" };
// Some orders list some of the statuses alone.
const LISTED = { finished: ["completed", "failed", "cancelled"], due: ["scheduled"], priority: ["pending"] };
const TIMES = { "": "Any time", "5m": "Last 5 min", "1h": "Last hour", "24h": "Last 24 h", "7d": "Last 7 days" };

function remember(part) {
  if (!IN_VOILA) return;
  const address = new URL(window.location.href);
  for (const [name, value] of Object.entries(part)) value ? address.searchParams.set(name, value) : address.searchParams.delete(name);
  history.replaceState(null, "", address);
}

function choice(name, label, all, change) {
  const node = el("select", { "aria-label": label, "data-testid": `filter-${name}`, onchange: () => change({ [name]: node.value }) },
    el("option", { value: "" }, all));
  const choose = (value) => {
    if (value && ![...node.options].some((option) => option.value === value)) node.append(el("option", { value }, value));
    if (node.value !== value) node.value = value;
  };
  const offer = (names) => {
    const wanted = node.value && !names.includes(node.value) ? [...names, node.value] : names;
    if (JSON.stringify([...node.options].slice(1).map((option) => option.value)) === JSON.stringify(wanted)) return;
    const chosen = node.value;
    node.replaceChildren(node.options[0], ...wanted.map((one) => el("option", { value: one }, one)));
    node.value = chosen;
  };
  return { node, choose, offer };
}

function filters(send) {
  const state = Object.fromEntries(FIELDS.map((name) => [name, ""]));
  const tabs = el("div", { class: "pq-tabs", role: "group", "aria-label": "Status" });
  const buttons = ["", ...STATUSES].map((status) => {
    const count = el("span", { class: "pq-count" });
    const glyph = el("span", { class: "pq-glyph", "aria-hidden": "true", hidden: !status }, GLYPH[status] ?? "");
    const button = el("button", { type: "button", "data-testid": `tab-${status || "all"}`, onclick: () => change({ status }) },
      glyph, status || "all", count);
    tabs.append(button);
    return { status, button, count };
  });
  const later = (name, node) => {
    let typing = null;
    node.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => change({ [name]: node.value.trim() }), 300);
    });
    return node;
  };
  const pick = (part) => change(part);
  const queue = choice("queue", "queue", "All queues", pick);
  const task = choice("task", "task", "All tasks", pick);
  const since = choice("since", "created since", TIMES[""], pick);
  const finished = choice("finished", "finished since", "Finished any time", pick);
  const order = choice("order", "order", ORDERS[""], pick);
  const options = (names, before = "") => Object.entries(names).slice(1).map(([value, words]) => el("option", { value }, before + words));
  since.node.append(...options(TIMES));
  finished.node.append(...options(TIMES, "Finished: "));
  order.node.append(...options(ORDERS));
  const search = later("search", el("input", {
    type: "search", placeholder: "Search, or id:7 tag:x since:2h", "aria-label": "search", "data-testid": "search", maxlength: 500,
  }));
  const typed = ["consumer", "tag", "group"].map((name) => {
    const input = later(name, el("input", { type: "text", "data-testid": `filter-${name}`, maxlength: 200, autocomplete: "off", placeholder: `any ${name}`, "aria-label": name }));
    return { name, input };
  });
  const until = el("button", { type: "button", class: "pq-chip", "data-testid": "until", onclick: () => change({ until: "" }) });
  const nothing = Object.fromEntries(FIELDS.map((name) => [name, ""]));
  const clear = el("button", { type: "button", onclick: () => change(nothing) }, "Clear filter");
  const more = el("div", { class: "pq-bar pq-more", hidden: true }, ...typed.map(({ input }) => input), finished.node);
  const unfold = el("button", {
    type: "button", "aria-expanded": "false", "data-testid": "more-filters",
    onclick: () => { more.hidden = !more.hidden; attribute(unfold, "aria-expanded", String(!more.hidden)); },
  }, "More filters");
  const root = el("div", { class: "pq-filter" }, tabs,
    el("div", { class: "pq-bar" }, search, queue.node, task.node, since.node, order.node, unfold, until, clear), more);
  const change = (part) => {
    Object.assign(state, part);
    if (state.status && LISTED[state.order] && !LISTED[state.order].includes(state.status)) state["order" in part ? "status" : "order"] = "";
    remember(state);
    show();
    send(state);
  };
  const show = () => {
    for (const { status, button } of buttons) attribute(button, "aria-pressed", String(status === state.status));
    queue.choose(state.queue);
    task.choose(state.task);
    since.choose(state.since);
    finished.choose(state.finished);
    order.choose(state.order);
    if (document.activeElement !== search) search.value = state.search;
    for (const { name, input } of typed) if (document.activeElement !== input) input.value = state[name];
    if ((state.finished || typed.some(({ name }) => state[name])) && more.hidden) unfold.click();
    until.hidden = !state.until;
    text(until, `until ${state.until} ×`);
    clear.hidden = FIELDS.every((name) => !state[name]);
  };
  const start = (first) => {
    const wanted = IN_VOILA ? new URLSearchParams(window.location.search) : new URLSearchParams(Object.entries(first));
    const part = Object.fromEntries(FIELDS.map((name) => [name, wanted.get(name) ?? ""]));
    if (IN_VOILA && FIELDS.some((name) => part[name])) change(part);
    Object.assign(state, part);
    show();
  };
  const update = (view) => {
    const all = STATUSES.reduce((sum, status) => sum + view.tabs[status], 0);
    for (const { status, count } of buttons) text(count, number(status ? view.tabs[status] : all));
    queue.offer(view.queue_names);
    task.offer(view.task_names);
    show();
  };
  return { root, search, start, update, change };
}

// Ticked jobs, by id; `matching` means all that match, which Python looks up and freezes when asked to act.
function selection(onchange) {
  const ids = new Set();
  let shown = [];
  let anchor = null;
  const state = { ids, matching: false };
  const changed = () => { state.matching = false; onchange(); };
  const every = el("input", {
    type: "checkbox", "aria-label": "Select all jobs on this page",
    onchange() { shown.forEach((job) => (every.checked ? ids.add(job.id) : ids.delete(job.id))); changed(); },
  });
  const toggle = (id, on, range) => {
    const [from, to] = [shown.findIndex((job) => job.id === anchor), shown.findIndex((job) => job.id === id)];
    const span = range && from >= 0 && to >= 0 ? shown.slice(Math.min(from, to), Math.max(from, to) + 1).map((job) => job.id) : [id];
    span.forEach((one) => (on ? ids.add(one) : ids.delete(one)));
    anchor = id;
    changed();
  };
  const column = {
    name: "", class: "pq-pick", head: every,
    make(cell, row) {
      const box = el("input", { type: "checkbox", onclick: (event) => toggle(Number(row.dataset.id), box.checked, event.shiftKey) });
      cell.append(box);
    },
    show(cell, job, now, row) {
      const box = cell.firstChild;
      attribute(box, "aria-label", `Select job ${job.id}`);
      box.checked = ids.has(job.id) || state.matching;
      attribute(row, "data-selected", ids.has(job.id) || state.matching);
    },
  };
  const clear = () => { ids.clear(); state.matching = false; anchor = null; };
  const update = (jobs) => {
    shown = jobs;
    const picked = jobs.filter((job) => ids.has(job.id)).length;
    every.checked = picked > 0 && picked === jobs.length;
    every.indeterminate = picked > 0 && picked < jobs.length;
    return ids.size - picked;
  };
  return Object.assign(state, { column, toggle, clear, update, whole: () => shown.length > 0 && shown.every((job) => ids.has(job.id)) });
}
