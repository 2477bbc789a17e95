"""Whatever a job, a consumer or a person writes is shown as text; nothing of it runs and no page breaks."""

import json

from browsing import expect_text, ready, rows, visit

RUN = "window.pwned=1"
STRINGS = [
    f"<script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f"<IMG SRC=x ONERROR={RUN}>",
    f'"><img src=x onerror={RUN}>',
    f"'><img src=x onerror={RUN}>",
    f"</textarea><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<svg onload={RUN}>",
    f"<svg/onload={RUN}//",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<math><mtext><script>{RUN}</script></mtext></math>",
    f"<body onload={RUN}>",
    f'<iframe src="javascript:parent.{RUN}">',
    f'<iframe srcdoc="<script>parent.{RUN}</script>">',
    f'<object data="javascript:{RUN}">',
    f'<embed src="javascript:{RUN}">',
    f'<a href="javascript:{RUN}">x</a>',
    f'<form action="javascript:{RUN}"><button>x',
    f"<input autofocus onfocus={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}>",
    f"<audio src=x onerror={RUN}>",
    f"<marquee onstart={RUN}>",
    f"<link rel=stylesheet href=x onerror={RUN}>",
    "<style>*{display:none}</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<template><b>x</b></template>",
    "<plaintext>",
    "<!--",
    "<!--pq-first-->",
    "<!--pq-style-->",
    f"javascript:{RUN}",
    f"data:text/html,<script>{RUN}</script>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"&#60;script&#62;{RUN}",
    f"\\u003cscript\\u003e{RUN}",
    f"${{{RUN}}}",
    f"{{{{{RUN}}}}}",
    "{% raw %}{{ 7*7 }}",
    f"`+({RUN})+`",
    f"');{RUN};//",
    f'");{RUN};//',
    "'; drop table jobs; --",
    "% _ \\ %%",
    "__proto__",
    "constructor",
    "toString",
    '{"__proto__": {"polluted": 1}}',
    "../../../etc/passwd",
    "../admin.ipynb?token=x",
    "status=failed&queue=x#y",
    "id:7 queue:x",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;javascript:x\x07link\x1b]8;;\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "right\u202eto\u202cleft",
    "\u2066isolate\u2069",
    "zero\u200bwidth\ufeff",
    "a\u0301" * 90,
    "Z\u0335\u0321" * 60,
    "nul\x00byte",
    "lone \ud800 surrogate",
    "🧨👩‍👩‍👧‍👦",
    "line\nbreak\r\nand\ttab",
    "x" * 200,
    "<b>" * 60,
    "x" * 5_000,
    "<img src=x onerror=window.pwned=1>" * 100,
    " ",
]
NOTHING_ACTIVE = """() => {
    const all = [...document.querySelectorAll('.pq *')];
    const tags = /^(img|script|iframe|object|embed|link|style|video|audio|base|meta|marquee|math)$/i;
    const runs = (one) => one.name.startsWith('on')
        || (one.name === 'href' && /^\\s*(javascript|data):/i.test(one.value));
    const bad = (node) => tags.test(node.tagName) || [...node.attributes].some(runs);
    const found = all.filter(bad).map((node) => node.outerHTML.slice(0, 100));
    return [all.length > 50, found, ({}).polluted ?? null, window.pwned ?? null];
}"""


def named(text):
    """The text where a name may be so, else something like it."""
    return text if text.isprintable() and 1 <= len(text) <= 200 else f"n{abs(hash(text)) % 10**6}"


def sow(queue, folder):
    """A failed, a completed and a running job for each string, which stands in all their fields."""
    consumers = []
    for text in STRINGS:
        name = named(text)
        options = {"queue": name, "tags": (name,), "group": name, "unique_key": name, "max_attempts": 1}
        lost = queue.enqueue(name, {text: text, "deep": [{text: [text]}]}, **options)
        job = queue.dequeue(name, (name,))
        queue.fail(job, raised(text))
        queue.enqueue(name, **options)
        queue.complete(queue.dequeue(name, (name,)), {text: text})
        queue.cancel(queue.enqueue(name, **options), reason=text, by=text)
        if len(consumers) < 12:
            consumers.append(queue.register_consumer(name, (name,)))
            queue.beat_consumer(consumers[-1], text)
            queue.enqueue(name, **options)
            queue.heartbeat(queue.dequeue(name, (name,)), message=text)
        queue.pause(name, text.encode("utf-8", "replace").decode())
    path = folder / "runs" / str(lost.id) / "1.ipynb"
    path.parent.mkdir(parents=True)
    cells = [notebook_cell(text) for text in [*STRINGS[::2], *STRINGS[1::2]]]
    path.write_text(json.dumps({"cells": cells}))
    return consumers, lost.id


def raised(text):
    """An error with a traceback."""
    try:
        int(text + "no number")
    except ValueError as error:
        error.args = (text,)
        return error


def notebook_cell(text):
    data = {"text/html": text, "text/plain": text, "application/javascript": text}
    failed = {"output_type": "error", "ename": text, "evalue": text, "traceback": [text]}
    return {
        "cell_type": text,
        "source": [text],
        "outputs": [
            {"output_type": "display_data", "data": data},
            failed,
            {"output_type": "stream", "text": text},
        ],
    }


def test_hostile_texts_are_shown_and_never_run(browser, server, queue):
    assert len(STRINGS) >= 60
    consumers, last = sow(queue, server.folder)
    try:
        with visit(browser, server, "ops.ipynb") as page:
            for table in ("consumers", "queues", "tasks", "running", "failures"):
                expect_text(page, table, STRINGS[0] if table != "failures" else named(STRINGS[-2])[:20])
            assert page.evaluate(NOTHING_ACTIVE) == [True, [], None, None]
        with visit(browser, server, f"admin.ipynb?job={last}") as page:
            expect_text(page, "panel", f"Job {last}:")
            page.get_by_test_id("run-1").click()
            expect_text(page, "run", "as text")
            seen = 0
            while True:
                seen += rows(page).count()
                look_through(page)
                if page.get_by_test_id("next").is_disabled():
                    break
                before = page.get_by_test_id("page").inner_text()
                page.get_by_test_id("next").click()
                page.wait_for_function(
                    "(before) => document.querySelector('[data-testid=page]').textContent !== before",
                    arg=before,
                )
            assert seen == len(queue.list(limit=1000))
            page.get_by_test_id("search").fill("<script>")
            expect_text(page, "jobs", "<script>")
            ready(page)
            assert page.evaluate(NOTHING_ACTIVE) == [True, [], None, None]
    finally:
        for consumer in consumers:
            queue.unregister_consumer(consumer)


def look_through(page):
    """Open the panel of every job on the page, as quickly as Python answers."""
    ids = page.evaluate(
        """async () => {
            const rows = [...document.querySelectorAll('[data-testid=jobs] tbody tr')];
            const panel = document.querySelector('[data-testid=panel]');
            const telling = rows.filter((row) => /failed|completed/.test(row.children[2].textContent));
            for (const id of telling.map((row) => row.dataset.id)) {
                document.querySelector(`[data-testid=jobs] tr[data-id="${id}"] .pq-open`)?.click();
                for (let wait = 0; wait < 400 && !panel.textContent.includes(`Job ${id}:`); wait += 1)
                    await new Promise((done) => setTimeout(done, 10));
                if (!panel.textContent.includes(`Job ${id}:`)) return [id];
            }
            return [];
        }"""
    )
    assert ids == []
    assert page.evaluate(NOTHING_ACTIVE) == [True, [], None, None]
