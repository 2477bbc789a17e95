// Charts: bars of what ended, lines of how long it took, how many wait. Plain SVG. Follows table.js.

const WIDTH = 420, HEIGHT = 150, LEFT = 44, BOTTOM = 20, TOP = 12, INNER = HEIGHT - BOTTOM - TOP;
const SPAN_WORDS = {
  "5m": ["5 min ago", "", "now"], "15m": ["15 min ago", "", "now"], "1h": ["60 min ago", "30 min", "now"],
  "6h": ["6 h ago", "3 h", "now"], "24h": ["24 h ago", "12 h", "now"], "7d": ["7 days ago", "3.5 days", "now"],
};

// The top of the axis: 2, 4, 10, 20, 40, 100 …, so that its half is a whole number too.
function round(most, least = 1) {
  for (let unit = least; ; unit *= 10) for (const step of [2, 4, 10]) if (most <= step * unit) return step * unit;
}

function canvas(testid) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "pq-chart", "data-testid": testid });
  const name = svg("title");
  const grid = svg("g", { class: "pq-axis" });
  const inside = svg("g");
  picture.append(name, grid, inside);
  const lines = [0, 0.5, 1].map((share) => {
    const y = TOP + INNER * (1 - share);
    const label = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
    grid.append(svg("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y }), label);
    return { share, label };
  });
  const ends = [[LEFT, "start"], [(LEFT + WIDTH) / 2, "middle"], [WIDTH, "end"]].map(([x, anchor]) => {
    const label = svg("text", { x, y: HEIGHT - 5, "text-anchor": anchor });
    grid.append(label);
    return label;
  });
  const axes = (full, format, words) => {
    for (const { share, label } of lines) text(label, format(full * share));
    ends.forEach((label, index) => text(label, words[index]));
  };
  return { picture, inside, axes, describe: (words) => { text(name, words); attribute(picture, "aria-label", words); } };
}

function fill(parent, count, make) {
  while (parent.children.length < count) parent.append(make());
  while (parent.children.length > count) parent.lastChild.remove();
}

function bars() {
  const { picture, inside, axes, describe } = canvas("throughput");
  const hatch = svg("pattern", { id: `pq-hatch-${Math.random().toString(36).slice(2)}`, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  hatch.append(svg("rect", { width: 5, height: 5, class: "pq-hatch-ground" }), svg("rect", { width: 2, height: 5, class: "pq-hatch-line" }));
  picture.append(hatch);
  const make = () => {
    const group = svg("g");
    group.append(svg("rect", { class: "pq-done" }), svg("rect", { fill: `url(#${hatch.id})` }), svg("title"));
    return group;
  };
  const update = (points, span) => {
    const full = round(points.reduce((top, [, done, failed]) => Math.max(top, done + failed), 0));
    const step = (WIDTH - LEFT) / Math.max(points.length, 1);
    const width = Math.max(0.5, Math.min(step - Math.min(2, step / 4), 60));
    const scale = INNER / full;
    axes(full, number, SPAN_WORDS[span]);
    fill(inside, points.length, make);
    points.forEach(([start, done, failed], index) => {
      const [below, above, title] = inside.children[index].children;
      const x = LEFT + index * step + (step - width) / 2;
      const place = (node, from, count) => {
        const height = count * scale;
        for (const [name, value] of Object.entries({ x, width, y: TOP + INNER - (from + count) * scale, height })) attribute(node, name, value.toFixed(2));
      };
      place(below, 0, done);
      place(above, done, failed);
      text(title, `${clock(start)}: ${number(done)} completed, ${number(failed)} failed`);
    });
    const [done, failed] = points.reduce((sum, point) => [sum[0] + point[1], sum[1] + point[2]], [0, 0]);
    describe(`Jobs finished since ${SPAN_WORDS[span][0]}: ${number(done)} completed, ${number(failed)} failed`);
  };
  return { root: picture, update };
}

// Where nothing ended there is no value, and the line is broken there; a lone value is a dot.
function path(points, read, x, y) {
  let pen = false;
  return points.map((point, index) => {
    const value = read(point);
    if (value === null) { pen = false; return ""; }
    const place = `${x(point, index).toFixed(1)} ${y(value).toFixed(1)}`;
    const alone = !pen && (index + 1 >= points.length || read(points[index + 1]) === null);
    const part = alone ? `M${place}h0.01` : `${pen ? "L" : "M"}${place}`;
    pen = true;
    return part;
  }).join("");
}

function times() {
  const { picture, inside, axes, describe } = canvas("durations");
  const [median, slow] = ["pq-p50", "pq-p95"].map((kind) => svg("path", { class: `pq-line ${kind}` }));
  inside.append(slow, median);
  const update = (points, span) => {
    const most = points.reduce((top, point) => Math.max(top, point[4] ?? 0), 0);
    const full = round(most, 0.001);
    const step = (WIDTH - LEFT) / Math.max(points.length, 1);
    const x = (_, index) => LEFT + (index + 0.5) * step;
    const y = (value) => TOP + INNER * (1 - value / full);
    axes(full, (value) => (value ? lasting(value) : "0"), SPAN_WORDS[span]);
    attribute(median, "d", path(points, (point) => point[3], x, y));
    attribute(slow, "d", path(points, (point) => point[4], x, y));
    const newest = points.findLast((point) => point[3] !== null);
    describe(newest ? `Duration of tries: half within ${lasting(newest[3])}, 95 % within ${lasting(newest[4])}, most recently` : "Duration of tries: none ended");
  };
  return { root: picture, update };
}

function depth() {
  const { picture, inside, axes, describe } = canvas("depth");
  const line = svg("path", { class: "pq-line pq-p50" });
  inside.append(line);
  const update = (points, now) => {
    const start = points[0]?.[0] ?? now;
    const width = Math.max(now - start, 1);
    const full = round(points.reduce((top, [, count]) => Math.max(top, count), 0));
    const stepped = points.flatMap((point, index) => (index ? [[point[0], points[index - 1][1]], point] : [point]));
    if (points.length) stepped.push([now, points.at(-1)[1]]);
    axes(full, number, [`${duration(now - start)} ago`, "", "now"]);
    const x = ([at]) => LEFT + (WIDTH - LEFT) * Math.min(1, (at - start) / width);
    attribute(line, "d", path(stepped, ([, count]) => count, x, (count) => TOP + INNER * (1 - count / full)));
    describe(`Pending jobs since the page was opened, now ${number(points.at(-1)?.[1])}`);
  };
  return { root: picture, update };
}
