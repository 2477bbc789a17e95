// The side panel: one job with all that is known of it; its executed notebook as text. Follows dialogs.js.

function block(heading, testid) {
  const body = el("pre", { class: "pq-pre", tabindex: "0", "data-testid": testid });
  const copy = el("button", { type: "button", class: "pq-quiet", "aria-label": `Copy ${heading}` }, "Copy");
  copy.onclick = async () => {
    await navigator.clipboard?.writeText(body.textContent);
    text(copy, "Copied");
    setTimeout(() => text(copy, "Copy"), 1500);
  };
  const root = el("section", {}, el("div", { class: "pq-head" }, el("h3", {}, heading), copy), body);
  const set = (value) => { root.hidden = !value; text(body, value ?? ""); };
  return { root, set };
}

function facts() {
  const root = el("dl", { class: "pq-facts" });
  const update = (pairs) => {
    const items = pairs.filter(([, value]) => value).map(([name, value, filter]) => ({ id: name, value, filter }));
    const make = (item) => el("div", {}, el("dt", {}, item.id), el("dd", {}, item.filter ? leading({}, {}) : el("span")));
    keyed(root, items, (item) => item.id, make, (node, item) => {
      text(node.lastChild.firstChild, item.value);
      if (item.filter) lead(node.lastChild.firstChild, item.filter);
    });
  };
  return { root, update };
}

// A list of what can be unfolded; what is open stays open while the page is refreshed.
function folded(heading, testid, summary, body, after = () => []) {
  const list = el("div", { "data-testid": testid });
  const root = el("section", {}, el("h3", {}, heading), list);
  const make = (item) => el("details", { open: item.open }, el("summary"), el("pre", { class: "pq-pre", tabindex: "0" }), ...after(item));
  const update = (items) => {
    root.hidden = !items.length;
    keyed(list, items, (item) => item.id, make, (node, item) => {
      text(node.children[0], summary(item));
      text(node.children[1], body(item));
      node.children[1].hidden = !body(item);
    });
  };
  return { root, update };
}

function runView() {
  const where = el("p", { class: "pq-muted" });
  const cells = el("div", { class: "pq-cells" });
  const root = el("section", { "data-testid": "run", hidden: true }, el("h3", {}, "Executed notebook"), where, cells);
  const cell = (one, failed) => {
    const outputs = one.outputs.map((output) => el("pre", { class: "pq-pre", tabindex: "0", "data-bad": output.bad }, output.text));
    return el("div", { class: "pq-cell", "data-failed": one.failed, "data-number": one.number },
      el("p", { class: "pq-muted" }, `Cell ${one.number}, ${one.kind}${one.number === failed ? ": failed here" : ""}`),
      el("pre", { class: "pq-pre", tabindex: "0" }, one.source), ...outputs);
  };
  const show = (run) => {
    root.hidden = false;
    const range = `cells ${run.first} to ${run.first + run.cells.length - 1} of ${run.total}`;
    text(where, `Attempt ${run.attempt}, ${range}, as text. ${run.path}`);
    cells.replaceChildren(...run.cells.map((one) => cell(one, run.failed)));
    (cells.querySelector("[data-failed]") ?? root).scrollIntoView({ block: "nearest" });
  };
  return { root, show, hide: () => { root.hidden = true; cells.replaceChildren(); } };
}

function panel(model, frame, act) {
  const title = el("h2", { id: "pq-panel-title" });
  const mark = badge();
  const close = el("button", { type: "button", class: "pq-quiet", "aria-label": "Close the panel", "data-testid": "panel-close", onclick: () => open(null) }, "×");
  const why = (button) => button.getAttribute("aria-disabled") === "true" && (frame.toast(button.title, true), true);
  const buttons = Object.entries(VERBS).map(([verb, label]) => {
    const button = el("button", { type: "button", "data-testid": `job-${verb}`, "data-danger": verb === "delete" }, label);
    button.onclick = () => why(button) || act.propose(verb, [shown]);
    return { verb, button };
  });
  const change = el("button", { type: "button", "data-testid": "job-revise" }, "Run with changes …");
  change.onclick = () => why(change) || act.revise(model.get("view").detail);
  const gone = el("p", { class: "pq-muted", hidden: true });
  const bar = el("progress", { max: 1, "aria-label": "progress" });
  const known = facts();
  const [parameters, result, error] = [block("Parameters", "panel-parameters"), block("Result", "panel-result"), block("Error", "panel-error")];
  const tries = folded("Attempts", "panel-attempts",
    (one) => `Attempt ${one.attempt}: ${one.outcome}, ${lasting(one.finished - one.started)}${one.consumer ? ` by ${one.consumer}` : ""}, ${clock(one.finished)}`,
    (one) => one.traceback || one.error);
  const run = runView();
  const runs = el("div", { class: "pq-bar", "data-testid": "runs" });
  const deeds = folded("Actions of people", "panel-actions",
    (one) => `${clock(one.at)}: ${one.verb} by ${one.who}${one.to ? `, ${one.from || "new"} → ${one.to}` : ""}`,
    (one) => [one.target, one.reason].filter(Boolean).join(": "));
  const parts = [el("div", { class: "pq-bar" }, ...buttons.map((one) => one.button), change), bar, known.root, error.root,
    parameters.root, result.root, tries.root, runs, run.root, deeds.root];
  const root = el("aside", { class: "pq-card pq-panel", "aria-labelledby": "pq-panel-title", "data-testid": "panel", hidden: true },
    el("div", { class: "pq-head" }, title, mark, close), gone, ...parts);
  let shown = null;
  const open = (id) => {
    shown = id;
    run.hide();
    remember({ job: id });
    root.hidden = id === null;
    if (id !== null) text(title, `Job ${id}`);
    model.send({ verb: "show", id });
  };
  const update = (job, now, readOnly) => {
    if (!job || shown === null || job.id !== shown) return;
    text(title, job.gone ? `Job ${job.id}` : `Job ${job.id}: ${job.task}`);
    gone.hidden = !job.gone;
    text(gone, job.gone ?? "");
    mark.hidden = Boolean(job.gone);
    for (const part of parts) if (part !== run.root) part.hidden = Boolean(job.gone);
    if (job.gone) return;
    setBadge(mark, job.status);
    for (const { verb, button } of buttons) disable(button, readOnly ? READ_ONLY : job.cannot[verb]);
    disable(change, readOnly ? READ_ONLY : job.cannot.resubmit);
    bar.hidden = job.progress === null || job.status !== "processing";
    bar.value = job.progress ?? 0;
    known.update([
      ["Queue", job.queue, { queue: job.queue }], ["Waits", job.waits, { group: job.group }], ["When", age(job, now)], ["Attempt", `${job.attempt} of ${job.attempts}`],
      ["Consumer", job.consumer, { consumer: job.consumer }], ["Assigned to", job.assigned], ["Message", job.message],
      ["Progress", job.progress === null ? "" : `${Math.round(100 * job.progress)} %`], ["Priority", job.priority && String(job.priority)],
      ["Tags", job.tags.join(", "), { tag: job.tags[0] }], ["Group", job.group, { group: job.group }], ["Unique key", job.key],
      ["Time limit", job.timeout && lasting(job.timeout)], ["Created", clock(job.created)], ["Started", clock(job.started)], ["Finished", clock(job.finished)],
    ]);
    error.set(job.error);
    parameters.set(job.parameters);
    result.set(job.result);
    tries.update([...job.tries].reverse());
    deeds.update(job.actions);
    runs.hidden = !job.runs.length;
    keyed(runs, job.runs, (attempt) => attempt,
      (attempt) => el("button", { type: "button", "data-testid": `run-${attempt}`, onclick: () => model.send({ verb: "run", id: shown, attempt }) }, `Notebook of attempt ${attempt}`),
      () => {});
  };
  return { root, open, update, run: (message) => { if (message.job === shown) run.show(message); }, job: () => shown };
}
