// Tables: of jobs, of consumers, of anything. Follows common.js.

// A table whose columns are {name, class, make(cell), show(cell, item, now), sort(item)}. A column with
// `sort` is ordered by its heading, within what is shown.
function table(caption, testid, columns, empty, order = null) {
  const body = el("tbody");
  let sorted = order; // [index, 1 or -1]
  let last = [[], 0];
  const head = el("tr", {}, ...columns.map((c, index) => {
    const sort = () => {
      sorted = !sorted || sorted[0] !== index ? [index, -1] : sorted[1] === -1 ? [index, 1] : order;
      update(...last);
    };
    const label = c.sort ? el("button", { type: "button", class: "pq-sort", onclick: sort }, c.name) : c.head ?? c.name;
    return el("th", { scope: "col", class: c.class }, label);
  }));
  const none = el("p", { class: "pq-empty" }, empty);
  const title = el("caption", {}, caption);
  const grid = el("table", { "data-testid": testid }, title, el("thead", {}, head), body);
  const root = el("div", { class: "pq-scroll", role: "region", "aria-label": caption, tabindex: "0" }, grid, none);
  const create = (item) => {
    const row = el("tr");
    for (const column of columns) {
      const cell = el("td", { class: column.class });
      column.make?.(cell, row, item);
      row.append(cell);
    }
    return row;
  };
  const ordered = (items) => {
    if (!sorted) return items;
    const [read, sign] = [columns[sorted[0]].sort, sorted[1]];
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -Infinity) - (b ?? -Infinity));
    return [...items].sort((a, b) => sign * compare(read(a), read(b)));
  };
  const update = (items, now) => {
    last = [items, now];
    columns.forEach((c, index) => {
      if (c.sort) attribute(head.children[index], "aria-sort", sorted?.[0] === index ? (sorted[1] > 0 ? "ascending" : "descending") : "none");
    });
    keyed(body, ordered(items), (item) => item.id ?? item.name, create, (row, item) => {
      columns.forEach((column, index) => column.show(row.children[index], item, now, row));
    });
    none.hidden = items.length > 0;
  };
  return { root, body, update, title, ordered };
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

const idLink = (cell) => cell.append(leading({}, { class: "pq-id" }));
const JOB = {
  id: {
    name: "Job", class: "pq-number", make: idLink,
    show(cell, job) { text(cell.firstChild, job.id); lead(cell.firstChild, { job: job.id }); },
  },
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

const named = (cell) => cell.append(leading({}, { class: "pq-name" }));
const naming = (read, filter) => (cell, item) => {
  text(cell.firstChild, read(item).trim() ? read(item) : `"${read(item)}"`); // a name of spaces is one too
  attribute(cell, "title", read(item) || null);
  lead(cell.firstChild, filter(item));
};
const counted = (read, filter) => ({
  class: "pq-number",
  make: (cell) => cell.append(leading({}, {})),
  show(cell, item) {
    text(cell.firstChild, number(read(item)));
    lead(cell.firstChild, filter(item));
    attribute(cell, "data-zero", !read(item));
  },
});

function consumersTable(extra = []) {
  return table("Consumers", "consumers", [
    { name: "Consumer", class: "pq-strong", make: named, show: naming((c) => c.name, (c) => ({ consumer: c.name })) },
    { name: "State", make: (cell) => cell.append(badge()), show: (cell, c) => setBadge(cell.firstChild, ...LIVES[c.state]) },
    { name: "Doing", make: clamp, show: long((c) => c.doing) },
    { name: "Queues", make: clamp, show: long((c) => c.queues) },
    { name: "Where", make: clamp, show: long((c) => c.where) },
    { name: "Runs for", show: plain((c, now) => duration(now - c.started)) },
    { name: "Heard", show: plain((c, now) => `${duration(now - c.heartbeat)} ago`) },
    ...extra,
  ], "No consumer is running. Start one with: pq consume");
}
