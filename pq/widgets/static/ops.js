// The ops page: looks, never acts. Follows common.js.

function tiles() {
  const root = el("ul", { class: "pq-tiles", "aria-label": "Jobs by status" });
  const values = STATUSES.map((status) => {
    const mark = badge();
    setBadge(mark, status);
    const value = el("strong", { "data-testid": `count-${status}` });
    const body = IN_VOILA ? el("a", { href: `admin.ipynb?status=${status}` }, mark, value) : el("div", {}, mark, value);
    root.append(el("li", {}, body));
    return [status, value];
  });
  const update = (counts) => values.forEach(([status, value]) => {
    text(value, number(counts[status]));
    attribute(value.closest("li"), "data-zero", !counts[status]);
  });
  return { root, update };
}

function queuesTable() {
  const count = (name, status) => ({
    name, class: "pq-number", show: plain((queue) => number(queue.counts[status])),
  });
  return table("Queues", "queues", [
    { name: "Queue", class: "pq-strong", make: short, show: long((queue) => queue.name) },
    count("Pending", "pending"), count("Scheduled", "scheduled"), count("Processing", "processing"),
    count("Completed", "completed"), count("Failed", "failed"),
    { name: "Longest wait", show: plain((queue, now) => (queue.oldest ? duration(now - queue.oldest) : "–")) },
    { name: "State", make: clamp, show: long((queue) => (queue.paused ? `paused${queue.reason ? `: ${queue.reason}` : ""}` : "open")) },
  ], "No queue has a job yet.");
}

function render({ model, el: node }) {
  const frame = page(model, node, "admin");
  const counts = tiles();
  const rate = figure("Finished per minute", "per-minute");
  const failed = figure("Failed, last 5 min", "failed-share");
  const oldest = figure("Longest wait", "oldest");
  const throughput = chart();
  const legend = el("p", { class: "pq-legend" },
    el("span", { class: "pq-key-done" }), "completed", el("span", { class: "pq-key-failed" }), "failed");
  const queues = queuesTable();
  const consumers = consumersTable();
  const running = table("Running now", "running",
    [JOB.id, JOB.task, JOB.queue, JOB.consumer, JOB.attempt, JOB.age, JOB.note], "Nothing is running.");
  const failures = table("Newest failed jobs", "failures",
    [JOB.id, JOB.task, JOB.queue, JOB.attempt, JOB.age, JOB.note], "No job has failed.");
  frame.root.append(
    counts.root,
    el("div", { class: "pq-card pq-flow" },
      el("div", { class: "pq-figures" }, rate.root, failed.root, oldest.root),
      el("div", { class: "pq-plot" }, el("h2", {}, "Jobs finished per minute"), legend, throughput.root)),
    ...[consumers, queues, running, failures].map((part) => el("div", { class: "pq-card" }, part.root)),
  );
  return frame.draw((view, now) => {
    counts.update(view.counts);
    rate.set(number(view.per_minute));
    failed.set(view.ended ? `${number(view.failed)} (${Math.round(100 * view.failed_share)} %)` : "none");
    oldest.set(view.oldest ? duration(now - view.oldest) : "–");
    throughput.update(view.points);
    consumers.update(view.consumers, now);
    queues.update(view.queues, now);
    running.update(view.running, now);
    failures.update(view.failures, now);
  });
}

export default { render };
