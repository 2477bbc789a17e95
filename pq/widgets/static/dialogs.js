// Questions and forms. A form stays open, with what was typed, until Python has said yes. Follows filters.js.

const VERBS = {
  resubmit: "Resubmit", assign: "Assign", mark_failed: "Mark failed", cancel: "Cancel", delete: "Delete",
};
// What can be taken back afterwards; the dialog says it before.
const BACK = {
  resubmit: "Undo, for half a minute, cancels those that have not begun.",
  assign: "Undo, for half a minute, assigns them back; a running job loses its lease and its try.",
  mark_failed: "Undo, for half a minute, lets those that waited wait again.",
  cancel: "Undo, for half a minute, lets those that waited wait again.",
  delete: "This cannot be undone.",
};

function field(label, name, extra = {}) {
  const input = el(extra.rows ? "textarea" : "input", { ...(extra.rows ? {} : { type: "text" }), name, autocomplete: "off", maxlength: 500, ...extra });
  return { input, root: el("label", {}, el("span", {}, label), input) };
}

function confirmation(model) {
  const title = el("h2", { id: "pq-question" });
  const lines = el("ul", { "data-testid": "proposal" });
  const names = el("datalist", { id: "pq-consumers" });
  const consumer = field("Consumer (empty: any)", "consumer", { list: "pq-consumers" });
  const reason = field("Reason", "reason");
  const typed = field("", "typed");
  const back = el("p", { class: "pq-muted" });
  const yes = el("button", { type: "submit", class: "pq-primary" });
  const no = el("button", { type: "button", onclick: () => dialog.close() }, "Keep as it is");
  const form = el("form", {}, title, lines, consumer.root, names, reason.root, typed.root, back, el("div", { class: "pq-buttons" }, no, yes));
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
      ...(proposal.more ? [el("li", {}, `More jobs match; these are the newest ${number(proposal.more)} of them.`)] : []),
      ...(proposal.jobs ? [el("li", { class: "pq-muted" }, `job ${proposal.first.join(", ")}${proposal.jobs > proposal.first.length ? " …" : ""}`)] : []),
    );
    names.replaceChildren(...consumers.map((one) => el("option", { value: one.name })));
    consumer.root.hidden = proposal.verb !== "assign";
    reason.input.required = proposal.verb === "mark_failed";
    text(reason.root.firstChild, reason.input.required ? "Reason (needed)" : "Reason");
    typed.root.hidden = !proposal.typed;
    text(typed.root.firstChild, `Type "${proposal.typed}" to confirm`);
    text(back, BACK[proposal.verb]);
    text(yes, `${VERBS[proposal.verb]} ${jobs(proposal.jobs)}`);
    attribute(yes, "data-danger", ["delete", "mark_failed", "cancel"].includes(proposal.verb));
    check();
    dialog.showModal();
  };
  return { root: dialog, show };
}

// Forms of one's own making: `fields` is [label, name, options], `verb` goes to Python with all of them.
function forms(model) {
  const title = el("h2", { id: "pq-form" });
  const words = el("p", { class: "pq-muted" });
  const body = el("div", { class: "pq-fields" });
  const wrong = el("p", { class: "pq-wrong", role: "alert", "data-testid": "wrong", hidden: true });
  const yes = el("button", { type: "submit", class: "pq-primary" });
  const no = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const form = el("form", {}, title, words, body, wrong, el("div", { class: "pq-buttons" }, no, yes));
  const dialog = el("dialog", { class: "pq-dialog", "aria-labelledby": "pq-form", "data-testid": "form" }, form);
  let open = null;
  const refuse = (why) => {
    wrong.hidden = !why;
    text(wrong, why);
    yes.disabled = false;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!open || yes.disabled) return;
    const answers = Object.fromEntries([...body.querySelectorAll("[name]")].map((input) => [input.name, input.value]));
    if ("parameters" in answers) {
      try { JSON.parse(answers.parameters || "{}"); } catch (error) { return refuse(`Parameters must be JSON: ${error.message}`); }
    }
    refuse("");
    yes.disabled = true;
    model.send({ ...open, ...answers });
  });
  dialog.addEventListener("close", () => { open = null; });
  const show = ({ heading, note = "", fields = [], submit = "", danger = false, message = {} }) => {
    open = message;
    text(title, heading);
    text(words, note);
    body.replaceChildren(...fields.map(([label, name, options]) => field(label, name, options).root));
    for (const [, name, options] of fields) if (options?.rows && options.value) body.querySelector(`[name="${name}"]`).value = options.value;
    yes.hidden = !submit;
    text(yes, submit);
    attribute(yes, "data-danger", danger);
    text(no, submit ? "Keep as it is" : "Close");
    refuse("");
    // The second page of a form: to close and open again would end it, because closing is told later.
    if (!dialog.open) dialog.showModal();
  };
  const answer = (message) => {
    if (!dialog.open || !yes.disabled) return;
    if (message.kind === "done") dialog.close();
    if (message.kind === "toast" && message.bad) refuse(message.text);
  };
  return { root: dialog, show, answer };
}

const KEYS = [
  ["/", "search"], ["j k", "next, previous job"], ["x", "select the job (with shift: from the last one on)"],
  ["Enter", "open the job"], ["r", "resubmit the selected jobs, or this one; asks first"],
  ["[ ]", "page back, next page"], ["Esc", "close the panel, leave the search, select none"], ["?", "this list"],
];

function help() {
  const rows = KEYS.map(([key, words]) => el("tr", {}, el("td", {}, el("kbd", {}, key)), el("td", {}, words)));
  const close = el("button", { type: "button", class: "pq-primary", onclick: () => dialog.close() }, "Close");
  const dialog = el("dialog", { class: "pq-dialog", "aria-labelledby": "pq-keys", "data-testid": "help" },
    el("h2", { id: "pq-keys" }, "Keys"), el("table", { class: "pq-keys" }, el("tbody", {}, ...rows)),
    el("p", { class: "pq-muted" }, "Search: words, or status: queue: task: consumer: tag: group: order: since: until: finished: id: with a value, such as queue:mail since:2h."),
    el("div", { class: "pq-buttons" }, close));
  return { root: dialog, show: () => dialog.showModal() };
}
