// The admin page: asks Python to propose an action, shows what it would do, sends back a yes. Follows panel.js.

const READ_ONLY = "This page is read-only.";

// A button that cannot be used stays reachable and says why.
function disable(button, why) {
  attribute(button, "aria-disabled", why ? "true" : null);
  attribute(button, "title", why || null);
}

function enqueueForm(view) {
  return {
    heading: "Enqueue a job", submit: "Enqueue", message: { verb: "enqueue" },
    fields: [
      ["Task", "task", { required: true, maxlength: 200, value: view.filter.task ?? view.task_names[0] ?? "", list: "pq-tasks" }],
      ["Parameters (JSON)", "parameters", { rows: 5, maxlength: 1000000, value: "{}", spellcheck: "false" }],
      ["Queue", "queue", { value: view.filter.queue ?? "default", maxlength: 200 }],
      ["Priority (higher runs first)", "priority", { inputmode: "numeric", placeholder: "0" }],
      ["Delay in seconds", "delay", { inputmode: "decimal", placeholder: "0" }],
      ["Attempts at most", "max_attempts", { inputmode: "numeric", placeholder: "as configured" }],
      ["Tags, with commas between", "tags", {}], ["Group", "group", {}], ["Unique key", "unique_key", {}],
    ],
  };
}

const notebooksForm = (paths) => ({
  heading: "Run a notebook", submit: "Next", message: { verb: "inspect" },
  note: "Its parameters cell makes the next form.",
  fields: [["Notebook", "path", { required: true, maxlength: 1000, list: "pq-notebooks", value: paths.length === 1 ? paths[0] : "" }]],
});

function notebookForm(view, { path, fields, readable }) {
  const label = (one) => [one.name, one.type && `(${one.type})`, one.help && `– ${one.help}`].filter(Boolean).join(" ");
  const own = fields.map((one) => [label(one), `parameter:${one.name}`, { required: one.required, maxlength: 100000, placeholder: one.required ? "" : one.default, spellcheck: "false" }]);
  const any = [["Parameters (JSON)", "parameters", { rows: 5, maxlength: 1000000, value: "{}", spellcheck: "false" }]];
  return {
    heading: `Run ${path}`, submit: "Enqueue", message: { verb: "run_notebook", path },
    note: readable && !fields.length ? "This notebook has no cell with the tag parameters." : "A field that is left empty keeps the notebook's own value.",
    fields: [...(readable ? own : any), ["Queue", "queue", { value: view.filter.queue ?? "default", maxlength: 200 }],
      ["Priority (higher runs first)", "priority", { inputmode: "numeric", placeholder: "0" }], ["Memory at most", "memory", { placeholder: "such as 2G" }],
      ["Tags, with commas between", "tags", {}], ["Group", "group", {}]],
  };
}

const reviseForm = (job) => ({
  heading: `Run job ${job.id} with changes`, submit: "Enqueue", message: { verb: "revise", id: job.id },
  note: "A new job is enqueued with the same options, and the tag again-" + job.id + ". The old one stays as it is. A value shown as ••• is kept.",
  fields: [["Parameters (JSON)", "parameters", { rows: 10, maxlength: 1000000, value: job.parameters, spellcheck: "false" }], ["Reason", "reason", { maxlength: 150 }]],
});

function queuesCard(model, ask) {
  const button = (cell, row) => {
    const one = el("button", { type: "button", class: "pq-small" });
    one.onclick = () => one.getAttribute("aria-disabled") !== "true" && ("paused" in one.dataset
      ? model.send({ verb: "resume", queue: row.dataset.id })
      : ask({ heading: `Pause ${row.dataset.id}?`, submit: "Pause", note: "Running jobs go on; no new one is handed out.", message: { verb: "pause", queue: row.dataset.id }, fields: [["Reason", "reason", {}]] }));
    cell.append(one);
  };
  const state = (q) => (q.paused ? `paused${q.reason ? `: ${q.reason}` : ""}` : "open");
  return table("Queues", "queues", [
    { name: "Queue", class: "pq-strong", make: named, show: naming((q) => q.name, (q) => ({ queue: q.name })), sort: (q) => q.name },
    { name: "Pending", ...counted((q) => q.counts.pending, (q) => ({ queue: q.name, status: "pending" })), sort: (q) => q.counts.pending },
    { name: "Failed", ...counted((q) => q.counts.failed, (q) => ({ queue: q.name, status: "failed" })), sort: (q) => q.counts.failed },
    { name: "State", make: clamp, show: long(state) },
    {
      name: "Action", make: button,
      show(cell, q) {
        text(cell.firstChild, q.paused ? "Resume" : "Pause");
        attribute(cell.firstChild, "data-paused", q.paused);
        disable(cell.firstChild, model.get("view").read_only && READ_ONLY);
        attribute(cell.firstChild, "aria-label", `${q.paused ? "Resume" : "Pause"} queue ${q.name}`);
      },
    },
  ], "No queue has a job yet.");
}

function groupsCard(model, ask) {
  const button = (cell, row) => {
    const one = el("button", { type: "button", class: "pq-small" }, "Limit …");
    one.onclick = () => one.getAttribute("aria-disabled") !== "true" && ask({
      heading: `Limit ${row.dataset.id}`, submit: "Set the limit", message: { verb: "limit", group: row.dataset.id },
      note: "Running jobs go on; pending ones above the limit wait blocked.",
      fields: [["At most so many at a time (empty: no limit)", "most", { inputmode: "numeric", value: row.dataset.most ?? "" }], ["Reason", "reason", {}]],
    });
    cell.append(one);
  };
  const count = (value) => plain((g) => (g.most === null ? "–" : number(value(g))));
  return table("Groups with a limit", "groups", [
    { name: "Group", class: "pq-strong", make: named, show: naming((g) => g.group, (g) => ({ group: g.group })), sort: (g) => g.group },
    { name: "Running", class: "pq-number", show: count((g) => g.running), sort: (g) => g.running },
    { name: "At most", class: "pq-number", show: plain((g) => (g.most === null ? "no limit" : number(g.most))), sort: (g) => g.most },
    { name: "Blocked", class: "pq-number", show: count((g) => g.blocked), sort: (g) => g.blocked },
    {
      name: "Action", make: button,
      show(cell, g, now, row) {
        attribute(row, "data-most", g.most);
        disable(cell.firstChild, model.get("view").read_only && READ_ONLY);
        attribute(cell.firstChild, "aria-label", `Limit group ${g.group}`);
      },
    },
  ], "No group at work has a limit.");
}

function stopColumn(model, ask) {
  return {
    name: "Action",
    make(cell, row, consumer) {
      const one = el("button", { type: "button", class: "pq-small" }, "Stop");
      one.onclick = () => one.getAttribute("aria-disabled") !== "true" && ask({
        heading: `Stop ${consumer.name}?`, submit: "Stop", danger: true, note: "It ends its job, or gives it back, and leaves. Under run_all.py it is started again.",
        message: { verb: "stop", consumer: row.dataset.id }, fields: [["Reason", "reason", {}]],
      });
      cell.append(one);
    },
    show(cell, c) {
      disable(cell.firstChild, model.get("view").read_only ? READ_ONLY : c.state === "live" ? "" : `it is ${c.state}`);
      attribute(cell.firstChild, "aria-label", `Stop ${c.name}`);
    },
  };
}

// Keys are taken at the window before JupyterLab sees them: there, x would cut the cell.
function keys(node, handlers) {
  const onKey = (event) => {
    const inside = node.contains(document.activeElement) || (IN_VOILA && document.activeElement === document.body);
    if (!inside || event.ctrlKey || event.metaKey || event.altKey || node.querySelector("dialog[open]")) return;
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (typing && event.key !== "Escape") return;
    const act = handlers[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act(event, typing);
  };
  window.addEventListener("keydown", onKey, true);
  return () => window.removeEventListener("keydown", onKey, true);
}

function render({ model, el: node }) {
  const frame = page(model, node, "ops");
  const view = () => model.get("view");
  const question = confirmation(model);
  const form = forms(model);
  const [guide, tasks, notebooks] = [help(), el("datalist", { id: "pq-tasks" }), el("datalist", { id: "pq-notebooks" })];
  let held = false;
  const hold = (on) => { if (held !== on) { held = on; model.send({ verb: "hold", on }); } };
  const filter = filters((state) => { picked.clear(); held = false; model.send({ verb: "filter", ...state }); });
  const picked = selection(() => { hold(picked.ids.size > 0); redraw(); });
  const none = () => { picked.clear(); hold(false); redraw(); };
  const propose = (verb, ids) => model.send(picked.matching && !ids ? { verb: "propose", action: verb, matching: true } : { verb: "propose", action: verb, ids: ids ?? [...picked.ids] });
  const side = panel(model, frame, { propose, revise: (job) => form.show(reviseForm(job)) });
  const opened = (cell, row) => cell.append(el("button", { type: "button", class: "pq-open", onclick: () => side.open(Number(row.dataset.id)) }));
  const id = { name: "Job", class: "pq-number", make: opened, show(cell, job) { text(cell.firstChild, job.id); attribute(cell.firstChild, "aria-label", `Open job ${job.id}`); } };
  const list = table("Jobs", "jobs",
    [picked.column, id, { ...JOB.status, sort: (j) => j.status }, { ...JOB.task, sort: (j) => j.task }, { ...JOB.queue, sort: (j) => j.queue },
      JOB.parameters, JOB.consumer, { ...JOB.attempt, sort: (j) => j.attempt }, { ...JOB.age, sort: (j) => j.finished ?? j.started ?? j.created }, JOB.note],
    "No job matches this filter.");
  const chosen = el("span", { class: "pq-chosen", "data-testid": "selected", "aria-live": "polite" });
  const drop = el("button", { type: "button", onclick: none }, "Select none");
  const everything = el("button", { type: "button", "data-testid": "select-matching", onclick: () => { picked.matching = true; redraw(); } }, "Select all that match");
  const actions = Object.entries(VERBS).map(([verb, label]) => {
    const button = el("button", { type: "button", "data-testid": `action-${verb}`, "data-danger": verb === "delete" }, label);
    button.onclick = () => (button.title ? frame.toast(button.title, true) : propose(verb));
    return { verb, button };
  });
  const add = el("button", { type: "button", "data-testid": "enqueue" }, "+ Enqueue");
  add.onclick = () => (add.title ? frame.toast(add.title, true) : form.show(enqueueForm(view())));
  const run = el("button", { type: "button", "data-testid": "run-notebook" }, "+ Notebook");
  run.onclick = () => (run.title ? frame.toast(run.title, true) : model.send({ verb: "notebooks" }));
  const bar = el("div", { class: "pq-bar pq-actions", role: "group", "aria-label": "Actions" }, ...actions.map((one) => one.button), chosen, everything, drop);
  const step = (verb, label) => el("button", { type: "button", "data-testid": verb, onclick: () => model.send({ verb }) }, label);
  const [back, on] = [step("previous", "← Back"), step("next", "More →")];
  const where = el("span", { "data-testid": "page" });
  const newer = el("button", { type: "button", class: "pq-newer", "data-testid": "newer", hidden: true, onclick: none });
  const [queues, groups, consumers] = [queuesCard(model, form.show), groupsCard(model, form.show), consumersTable([stopColumn(model, form.show)])];
  const cards = [queues, groups, consumers].map((part) => el("div", { class: "pq-card" }, part.root));
  const jobsCard = el("div", { class: "pq-card pq-jobs" }, bar, newer, list.root, el("div", { class: "pq-bar pq-pager" }, back, where, on));
  frame.tools.append(add, run, el("button", { type: "button", class: "pq-quiet", "aria-label": "Keys", "data-testid": "keys", onclick: guide.show }, "?"));
  frame.root.append(filter.root, el("div", { class: "pq-split" }, jobsCard, side.root), ...cards, question.root, form.root, guide.root, tasks, notebooks);

  const messages = {
    notebooks: ({ paths }) => { notebooks.replaceChildren(...paths.map((value) => el("option", { value }))); form.show(notebooksForm(paths)); },
    notebook: (message) => form.show(notebookForm(view(), message)),
    proposal: (message) => question.show(message, view().consumers),
    applied: () => { none(); model.send({ verb: "refresh" }); },
    done: (message) => { if (message.job) side.open(message.job); },
    run: side.run,
    progress: (message) => { text(chosen, message.of > 100 ? `${number(message.done)} of ${number(message.of)} done` : chosen.textContent); },
  };
  const onMessage = (message) => { form.answer(message); messages[message.kind]?.(message); };
  model.on("msg:custom", onMessage);

  const reason = (verb, here, elsewhere) => {
    if (view().read_only) return READ_ONLY;
    if (!picked.ids.size && !picked.matching) return "Select jobs first.";
    const known = !elsewhere && !picked.matching;
    return known && !here.some((job) => job.can.includes(verb)) ? `None of the selected jobs can be ${DONE[verb]} as it is now.` : "";
  };
  const draw = (shown, now) => {
    filter.update(shown);
    list.update(shown.jobs, now);
    const elsewhere = picked.update(shown.jobs);
    const count = picked.ids.size;
    const words = count ? `${number(count)} selected${elsewhere ? `, ${number(elsewhere)} not on this page` : ""}` : shown.read_only ? READ_ONLY : "Select jobs to act on them.";
    text(chosen, picked.matching ? "All that match, counted when you act" : words);
    drop.hidden = !count && !picked.matching;
    everything.hidden = picked.matching || !picked.whole() || (!shown.more && shown.page === 1);
    const here = shown.jobs.filter((job) => picked.ids.has(job.id));
    for (const { verb, button } of actions) disable(button, reason(verb, here, elsewhere));
    [add, run].forEach((one) => disable(one, shown.read_only && READ_ONLY));
    back.disabled = shown.page === 1;
    on.disabled = !shown.more;
    const total = STATUSES.reduce((sum, status) => sum + shown.tabs[status], 0);
    const bounded = !shown.more && Object.keys(shown.filter).some((name) => name !== "order") && total > shown.within;
    text(where, `page ${shown.page}${bounded ? `, among ${number(shown.within)} jobs from there on` : ""}${shown.held ? ", held while jobs are selected" : ""}`);
    newer.hidden = !shown.newer;
    text(newer, `${shown.newer >= 100 ? "100 or more" : number(shown.newer)} newer ${shown.newer === 1 ? "job" : "jobs"}: show`);
    cards.forEach((card) => { card.hidden = !shown.whole; });
    groups.root.parentNode.hidden = !shown.whole || !shown.groups.length;
    groups.update(shown.groups, now);
    queues.update(shown.queues, now);
    consumers.update(shown.consumers, now);
    tasks.replaceChildren(...shown.task_names.map((value) => el("option", { value })));
    for (const row of list.body.children) attribute(row, "data-open", Number(row.dataset.id) === side.job());
    side.update(shown.detail, now, shown.read_only);
  };
  const stop = frame.draw(draw);
  const redraw = () => draw(view(), model.get("now"));

  const current = () => document.activeElement?.closest?.("tr[data-id]");
  const move = (by) => {
    const all = [...list.body.children];
    const at = all.indexOf(current());
    all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))]?.querySelector(".pq-open")?.focus();
  };
  const unkey = keys(node, {
    "/": () => filter.search.focus(), j: () => move(1), k: () => move(-1), "?": guide.show,
    x: (event) => { const row = current(); if (row) picked.toggle(Number(row.dataset.id), !picked.ids.has(Number(row.dataset.id)), event.shiftKey); },
    r: () => { if (view().read_only) return; if (picked.ids.size || picked.matching) propose("resubmit"); else if (current()) propose("resubmit", [Number(current().dataset.id)]); },
    "[": () => !back.disabled && back.click(), "]": () => !on.disabled && on.click(),
    Escape: (event, typing) => { if (typing) typing.blur(); else if (side.job() !== null) side.open(null); else none(); },
  });
  filter.start(view().filter);
  restore(picked, side, hold);
  redraw();
  return () => { stop(); unkey(); model.off("msg:custom", onMessage); };
}

const DONE = { resubmit: "resubmitted", assign: "assigned", mark_failed: "marked failed", cancel: "cancelled", delete: "deleted" };

// What a page that loads itself again after a crash had: its selection and its place.
function restore(picked, side, hold) {
  if (!IN_VOILA) return;
  const kept = JSON.parse(sessionStorage.getItem("pq-kept") ?? "null");
  sessionStorage.removeItem("pq-kept");
  if (kept && kept.address === window.location.pathname + window.location.search) {
    kept.ids.forEach((id) => picked.ids.add(id));
    hold(picked.ids.size > 0);
  }
  const job = Number(new URLSearchParams(window.location.search).get("job"));
  if (job) side.open(job);
  window.addEventListener("pagehide", () => {
    const address = window.location.pathname + window.location.search;
    sessionStorage.setItem("pq-kept", JSON.stringify({ address, ids: [...picked.ids] }));
  });
}

export default { render };
