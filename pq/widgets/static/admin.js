// The admin page: asks Python to propose an action, shows what it would do, sends back a yes. Follows common.js.

const VERBS = {
  resubmit: "Resubmit", assign: "Assign", mark_failed: "Mark failed", cancel: "Cancel", delete: "Delete",
};
const FIELDS = ["status", "queue", "task", "search"];

function confirmation(model) {
  const title = el("h2", { id: "pq-question" });
  const lines = el("ul", { "data-testid": "proposal" });
  const names = el("datalist", { id: "pq-consumers" });
  const field = (label, name, extra = {}) => {
    const input = el("input", { type: "text", name, autocomplete: "off", maxlength: 500, ...extra });
    return { input, root: el("label", {}, el("span", {}, label), input) };
  };
  const consumer = field("Consumer (empty: any)", "consumer", { list: "pq-consumers" });
  const reason = field("Reason", "reason");
  const typed = field("", "typed");
  const yes = el("button", { type: "submit", class: "pq-primary" });
  const no = el("button", { type: "button", onclick: () => dialog.close() }, "Keep as it is");
  const form = el("form", {}, title, lines, consumer.root, names, reason.root, typed.root, el("div", { class: "pq-buttons" }, no, yes));
  const dialog = el("dialog", { class: "pq-dialog", "aria-labelledby": "pq-question", "data-testid": "dialog" }, form);
  let open = null;
  const check = () => {
    yes.disabled = !open?.jobs || (open.typed && typed.input.value.trim() !== open.typed)
      || (open.verb === "mark_failed" && !reason.input.value.trim());
  };
  form.addEventListener("input", check);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!open || yes.disabled) return;
    model.send({ verb: "apply", nonce: open.nonce, reason: reason.input.value, consumer: consumer.input.value, typed: typed.input.value });
    open = null;
    dialog.close();
  });
  dialog.addEventListener("close", () => {
    if (open) model.send({ verb: "withdraw" });
    open = null;
  });
  const show = (proposal, consumers) => {
    if (dialog.open) dialog.close();
    open = proposal;
    form.reset();
    text(title, `${VERBS[proposal.verb]} ${jobs(proposal.jobs)}?`);
    const line = (what) => ([status, count]) => el("li", {}, what(status, count));
    lines.replaceChildren(
      ...Object.entries(proposal.changes).map(line((status, count) => `${number(count)} ${status}`)),
      ...Object.entries(proposal.skipped).map(line((status, count) => `${number(count)} ${status}: skipped, not allowed`)),
      ...(proposal.jobs ? [el("li", { class: "pq-muted" }, `job ${proposal.first.join(", ")}${proposal.jobs > proposal.first.length ? " …" : ""}`)] : []),
    );
    names.replaceChildren(...consumers.map((one) => el("option", { value: one.name })));
    consumer.root.hidden = proposal.verb !== "assign";
    reason.input.required = proposal.verb === "mark_failed";
    text(reason.root.firstChild, reason.input.required ? "Reason (needed)" : "Reason");
    typed.root.hidden = !proposal.typed;
    text(typed.root.firstChild, `Type "${proposal.typed}" to confirm`);
    text(yes, `${VERBS[proposal.verb]} ${jobs(proposal.jobs)}`);
    attribute(yes, "data-danger", ["delete", "mark_failed", "cancel"].includes(proposal.verb));
    check();
    dialog.showModal();
  };
  return { root: dialog, show };
}

function filters(send) {
  const state = { status: "", queue: "", task: "", search: "" };
  const tabs = el("div", { class: "pq-tabs", role: "group", "aria-label": "Status" });
  const buttons = ["", ...STATUSES].map((status) => {
    const count = el("span", { class: "pq-count" });
    const glyph = el("span", { class: "pq-glyph", "aria-hidden": "true", hidden: !status }, GLYPH[status] ?? "");
    const button = el("button", { type: "button", "data-testid": `tab-${status || "all"}`, onclick: () => change({ status }) },
      glyph, status || "all", count);
    tabs.append(button);
    return { status, button, count };
  });
  const choice = (name, all) => {
    const node = el("select", { "aria-label": name, "data-testid": `filter-${name}`, onchange: () => change({ [name]: node.value }) },
      el("option", { value: "" }, all));
    return node;
  };
  const queue = choice("queue", "All queues");
  const task = choice("task", "All tasks");
  let typing = null;
  const search = el("input", {
    type: "search", placeholder: "Search text, or id:7", "aria-label": "search", "data-testid": "search", maxlength: 200,
    oninput() { clearTimeout(typing); typing = setTimeout(() => change({ search: search.value.trim() }), 300); },
  });
  const clear = el("button", { type: "button", onclick: () => change({ status: "", queue: "", task: "", search: "" }) }, "Clear filter");
  const root = el("div", { class: "pq-filter" }, tabs, el("div", { class: "pq-bar" }, search, queue, task, clear));
  const change = (part) => {
    Object.assign(state, part);
    if (IN_VOILA) {
      const address = new URL(window.location.href);
      for (const name of FIELDS) state[name] ? address.searchParams.set(name, state[name]) : address.searchParams.delete(name);
      history.replaceState(null, "", address);
    }
    show();
    send(state);
  };
  const show = () => {
    for (const { status, button } of buttons) attribute(button, "aria-pressed", String(status === state.status));
    choose(queue, state.queue);
    choose(task, state.task);
    if (document.activeElement !== search) search.value = state.search;
    clear.hidden = FIELDS.every((name) => !state[name]);
  };
  const choose = (node, value) => {
    if (value && ![...node.options].some((option) => option.value === value)) node.append(el("option", { value }, value));
    if (node.value !== value) node.value = value;
  };
  const offer = (node, names) => {
    const wanted = node.value && !names.includes(node.value) ? [...names, node.value] : names;
    if (JSON.stringify([...node.options].slice(1).map((option) => option.value)) === JSON.stringify(wanted)) return;
    const chosen = node.value;
    node.replaceChildren(node.options[0], ...wanted.map((name) => el("option", { value: name }, name)));
    node.value = chosen;
  };
  const start = () => {
    const wanted = IN_VOILA ? new URLSearchParams(window.location.search) : new URLSearchParams();
    const part = Object.fromEntries(FIELDS.map((name) => [name, wanted.get(name) ?? ""]));
    if (FIELDS.some((name) => part[name])) change(part);
    show();
  };
  const update = (view) => {
    const all = STATUSES.reduce((sum, status) => sum + view.tabs[status], 0);
    for (const { status, count } of buttons) text(count, number(status ? view.tabs[status] : all));
    offer(queue, view.queue_names);
    offer(task, view.task_names);
    show();
  };
  return { root, start, update };
}

function selection(onchange) {
  const ids = new Set();
  let shown = [];
  const every = el("input", {
    type: "checkbox", "aria-label": "Select all jobs on this page",
    onchange() { shown.forEach((job) => (every.checked ? ids.add(job.id) : ids.delete(job.id))); onchange(); },
  });
  const column = {
    name: "", class: "pq-pick", head: every,
    make(cell, row) {
      const box = el("input", {
        type: "checkbox",
        onchange() { const id = Number(row.dataset.id); box.checked ? ids.add(id) : ids.delete(id); onchange(); },
      });
      cell.append(box);
    },
    show(cell, job, now, row) {
      const box = cell.firstChild;
      attribute(box, "aria-label", `Select job ${job.id}`);
      box.checked = ids.has(job.id);
      attribute(row, "data-selected", ids.has(job.id));
    },
  };
  const update = (jobs) => {
    shown = jobs;
    const picked = jobs.filter((job) => ids.has(job.id)).length;
    every.checked = picked > 0 && picked === jobs.length;
    every.indeterminate = picked > 0 && picked < jobs.length;
    return ids.size - picked;
  };
  return { ids, column, update };
}

function render({ model, el: node }) {
  const frame = page(model, node, "ops");
  const dialog = confirmation(model);
  const filter = filters((state) => { picked.ids.clear(); held = false; model.send({ verb: "filter", ...state }); });
  let held = false;
  const picked = selection(() => {
    if (held !== picked.ids.size > 0) {
      held = picked.ids.size > 0;
      model.send({ verb: "hold", on: held });
    }
    redraw();
  });
  const list = table("Jobs", "jobs",
    [picked.column, JOB.id, JOB.status, JOB.task, JOB.queue, JOB.parameters, JOB.consumer, JOB.attempt, JOB.age, JOB.note],
    "No job matches this filter.");
  const chosen = el("span", { class: "pq-chosen", "data-testid": "selected", "aria-live": "polite" });
  const drop = el("button", { type: "button", onclick: () => { picked.ids.clear(); held = false; model.send({ verb: "hold", on: false }); redraw(); } }, "Select none");
  const actions = Object.entries(VERBS).map(([verb, label]) => el("button", {
    type: "button", "data-testid": `action-${verb}`, "data-danger": verb === "delete",
    onclick: () => model.send({ verb: "propose", action: verb, ids: [...picked.ids] }),
  }, label));
  const bar = el("div", { class: "pq-bar pq-actions", role: "group", "aria-label": "Actions" }, ...actions, chosen, drop);
  const step = (verb, label) => el("button", { type: "button", "data-testid": verb, onclick: () => model.send({ verb }) }, label);
  const [back, on] = [step("previous", "← Newer"), step("next", "Older →")];
  const where = el("span", { "data-testid": "page" });
  const consumers = consumersTable();
  frame.root.append(
    filter.root,
    el("div", { class: "pq-card" }, bar, list.root, el("div", { class: "pq-bar pq-pager" }, back, where, on)),
    el("div", { class: "pq-card" }, consumers.root),
    dialog.root,
  );
  let redraw = () => {};
  const onMessage = (message) => {
    if (message.kind === "proposal") dialog.show(message, model.get("view").consumers);
    if (message.kind === "applied") { picked.ids.clear(); held = false; model.send({ verb: "hold", on: false }); redraw(); }
  };
  model.on("msg:custom", onMessage);
  const draw = (view, now) => {
    filter.update(view);
    list.update(view.jobs, now);
    const elsewhere = picked.update(view.jobs);
    const count = picked.ids.size;
    text(chosen, count ? `${number(count)} selected${elsewhere ? `, ${number(elsewhere)} not on this page` : ""}` : view.read_only ? "This page is read-only." : "Select jobs to act on them.");
    drop.hidden = !count;
    const here = view.jobs.filter((job) => picked.ids.has(job.id));
    for (const button of actions) {
      const verb = button.dataset.testid.slice("action-".length);
      button.disabled = view.read_only || !count || (!elsewhere && !here.some((job) => job.can.includes(verb)));
    }
    back.disabled = view.page === 1;
    on.disabled = !view.more;
    text(where, `page ${view.page}${view.held ? ", held while jobs are selected" : ""}`);
    consumers.update(view.consumers, now);
  };
  const stop = frame.draw(draw);
  redraw = () => draw(model.get("view"), model.get("now"));
  filter.start();
  return () => { stop(); model.off("msg:custom", onMessage); };
}

export default { render };
