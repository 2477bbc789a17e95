// The ops page: looks, never acts. Every number leads to the jobs behind it. Follows charts.js.

const SPANS = { "5m": "5 min", "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 days" };

function tiles() {
  const root = el("ul", { class: "pq-tiles", "aria-label": "Jobs by status" });
  const values = STATUSES.map((status) => {
    const mark = badge();
    setBadge(mark, status);
    const value = el("strong", { "data-testid": `count-${status}` });
    root.append(el("li", {}, leading({ status }, {}, mark, value)));
    return [status, value];
  });
  const update = (counts) => values.forEach(([status, value]) => {
    text(value, number(counts[status]));
    attribute(value.closest("li"), "data-zero", !counts[status]);
  });
  return { root, update };
}

function figure(label, testid, filter = null) {
  const value = filter ? leading(filter, { "data-testid": testid }) : el("span", { "data-testid": testid });
  const words = el("span", {}, label);
  const root = el("div", { class: "pq-figure" }, words, el("strong", {}, value));
  return { root, words, value, set: (shown) => text(value, shown) };
}

function spans(model) {
  const choose = (span) => (event) => {
    attribute(event.currentTarget, "aria-busy", "true");
    model.send({ verb: "span", span });
  };
  const buttons = Object.entries(SPANS).map(([span, words]) =>
    el("button", { type: "button", "data-testid": `span-${span}`, onclick: choose(span) }, words));
  const root = el("div", { class: "pq-tabs pq-spans", role: "group", "aria-label": "Span of time" }, ...buttons);
  const update = (span) => Object.keys(SPANS).forEach((name, index) => {
    attribute(buttons[index], "aria-pressed", String(name === span));
    if (name === span) attribute(buttons[index], "aria-busy", null);
  });
  return { root, update };
}

function queuesTable() {
  const count = (name, status) => ({ name, ...counted((q) => q.counts[status], (q) => ({ queue: q.name, status })), sort: (q) => q.counts[status] });
  const state = (q) => (q.paused ? `paused${q.reason ? `: ${q.reason}` : ""}` : "open");
  return table("Queues", "queues", [
    { name: "Queue", class: "pq-strong", make: named, show: naming((q) => q.name, (q) => ({ queue: q.name })), sort: (q) => q.name },
    count("Pending", "pending"), count("Scheduled", "scheduled"), count("Processing", "processing"),
    count("Completed", "completed"), count("Failed", "failed"),
    { name: "Longest wait", show: plain((q, now) => (q.oldest ? duration(now - q.oldest) : "–")) },
    { name: "State", make: clamp, show: long(state) },
  ], "No queue has a job yet.");
}

function tasksTable() {
  const both = (t) => ({ queue: t.queue, task: t.task });
  return table("Tasks in this span", "tasks", [
    { name: "Task", class: "pq-strong", make: named, show: naming((t) => t.task, both), sort: (t) => t.task },
    { name: "Queue", make: named, show: naming((t) => t.queue, (t) => ({ queue: t.queue })), sort: (t) => t.queue },
    { name: "Finished", ...counted((t) => t.ended, both), sort: (t) => t.ended },
    { name: "Failed", ...counted((t) => t.failed, (t) => ({ ...both(t), status: "failed" })), sort: (t) => t.failed },
    { name: "Failed share", class: "pq-number", show: plain((t) => share(t.failed, t.ended)), sort: (t) => (t.ended ? t.failed / t.ended : 0) },
    { name: "Retried", class: "pq-number", show: plain((t) => number(t.retried)), sort: (t) => t.retried },
    { name: "Half within", class: "pq-number", show: plain((t) => lasting(t.p50)), sort: (t) => t.p50 },
    { name: "95 % within", class: "pq-number", show: plain((t) => lasting(t.p95)), sort: (t) => t.p95 },
  ], "Nothing has ended in this span.");
}

const share = (part, whole) => (whole ? `${(100 * part / whole).toFixed(part && part / whole < 0.1 ? 1 : 0)} %` : "–");
const LEVELS = { ok: ["completed", "good"], warning: ["scheduled", "look"], error: ["failed", "bad"] };

function healthCard() {
  const sizes = el("p", { class: "pq-muted", "data-testid": "sizes" });
  const findings = table("Database", "health", [
    { name: "Check", class: "pq-strong", show: plain((f) => f.check) },
    { name: "State", make: (cell) => cell.append(badge()), show: (cell, f) => setBadge(cell.firstChild, ...(LEVELS[f.level] ?? LEVELS.ok)) },
    { name: "Finding", class: "pq-wide", show: plain((f) => `${f.text}${f.mend ? ` · ${f.mend}` : ""}`) },
  ], "Being looked at …");
  const root = el("div", {}, findings.root, sizes);
  const update = (health, now) => {
    findings.update(health?.findings ?? [], now);
    text(sizes, health ? `File ${bytes(health.file)}, write-ahead log ${bytes(health.wal)}, looked at ${duration(now - health.at)} ago.` : "");
  };
  return { root, update };
}

const plot = (heading, legend, chart) => el("div", { class: "pq-plot" }, el("h2", {}, heading), legend, chart.root);
const key = (...pairs) => el("p", { class: "pq-legend" }, ...pairs.flatMap(([kind, words]) => [el("span", { class: kind }), words]));

function render({ model, el: node }) {
  const frame = page(model, node, "admin");
  const counts = tiles();
  const span = spans(model);
  const rate = figure("Finished per minute", "per-minute", {});
  const failed = figure("Failed", "failed-share", { status: "failed" });
  const oldest = figure("Longest wait", "oldest", { status: "pending" });
  const [throughput, durations, waiting] = [bars(), times(), depth()];
  const [queues, tasks, consumers, health] = [queuesTable(), tasksTable(), consumersTable(), healthCard()];
  const running = table("Running now", "running",
    [JOB.id, JOB.task, JOB.queue, JOB.consumer, JOB.attempt, JOB.age, JOB.note], "Nothing is running.");
  const failures = table("Newest failed jobs", "failures",
    [JOB.id, JOB.task, JOB.queue, JOB.attempt, JOB.age, JOB.note], "No job has failed.");
  frame.root.append(
    counts.root,
    el("div", { class: "pq-card" },
      el("div", { class: "pq-flow pq-figures" }, rate.root, failed.root, oldest.root, span.root),
      el("div", { class: "pq-plots" },
        plot("Jobs finished", key(["pq-key-done", "completed"], ["pq-key-failed", "failed"]), throughput),
        plot("How long they took", key(["pq-key-p50", "half within"], ["pq-key-p95", "95 % within"]), durations),
        plot("Pending jobs", key(["pq-key-p50", "since this page was opened"]), waiting))),
    ...[consumers, queues, tasks, running, failures, health].map((part) => el("div", { class: "pq-card" }, part.root)),
  );
  return frame.draw((view, now) => {
    counts.update(view.counts);
    rate.set(number(view.per_minute));
    text(failed.words, `Failed in ${SPANS[view.span]}`);
    failed.set(view.window.ended ? `${number(view.window.failed)} (${share(view.window.failed, view.window.ended)})` : "none");
    oldest.set(view.oldest ? duration(now - view.oldest) : "–");
    span.update(view.span);
    throughput.update(view.points, view.span);
    durations.update(view.points, view.span);
    waiting.update(view.depths, now);
    consumers.update(view.consumers, now);
    queues.update(view.queues, now);
    tasks.update(view.tasks, now);
    running.update(view.running, now);
    failures.update(view.failures, now);
    health.update(view.health, now);
  });
}

export default { render };
