// The explorer's page. The data stand in the page as JSON (page.py says how); nothing is fetched.
// Only what is in view is in the document: positions are sums over rows and columns, and each
// change of the view renders anew what it shows.
const data = JSON.parse(document.getElementById("data").textContent);
const n = data.kind.length;
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const strips = { value: bytes(data.valueStrips), gradient: bytes(data.gradientStrips) };
const told = (v, i) => data.facts[data.fact[v]][i];
const nameOf = (v) => told(v, 0);
const scopeOf = (v) => told(v, 1);
const shapeOf = (v) => told(v, 2);
const lineOf = (v) => told(v, 3);
const element = (id) => document.getElementById(id);

const inputStart = [0];
for (let v = 0; v < n; v++) inputStart.push(inputStart[v] + data.inputCount[v]);

// ---------------------------------------------------------------- what is where

// A block holds the vertices of one row and one column. Columns: leaves, then time steps.
const blocks = new Map(); // "row,column" -> {row, column, vertices, open}
const blockOf = new Array(n);
for (let v = 0; v < n; v++) {
  const key = data.row[v] + "," + data.column[v];
  if (!blocks.has(key)) {
    blocks.set(key, { row: data.row[v], column: data.column[v], vertices: [], open: false });
  }
  const block = blocks.get(key);
  blockOf[v] = block;
  block.vertices.push(v);
}
for (const block of blocks.values()) {
  block.place = new Map(block.vertices.map((v, i) => [v, i]));
  block.open = data.open || block.vertices.length === 1 || data.columns[block.column].leaves;
}

const BOX = { width: 150, height: 56, gap: 10 };
const FOLDED = 56;
const PAD = 14; // around each block
const HEAD = 24; // above the columns
let left = []; // of each column
let top = []; // of each row

function heightOf(block) {
  return block.open ? block.vertices.length * (BOX.height + BOX.gap) - BOX.gap : FOLDED;
}

function layOut() {
  left = [0];
  for (let c = 0; c < data.columns.length; c++) left.push(left[c] + BOX.width + 3 * PAD);
  const tall = new Array(data.rows.length).fill(FOLDED);
  for (const block of blocks.values()) {
    tall[block.row] = Math.max(tall[block.row], heightOf(block));
  }
  top = [HEAD + 18];
  for (let r = 0; r < tall.length; r++) top.push(top[r] + tall[r] + 2 * PAD + 18);
  element("space").style.width = left[left.length - 1] + "px";
  element("space").style.height = top[top.length - 1] + "px";
}

// The box of a vertex; that of its block, if the block is folded.
function placeOf(v) {
  const block = blockOf[v];
  const x = left[block.column] + PAD;
  const y = top[block.row] + PAD;
  if (!block.open) return { x, y, height: FOLDED };
  const i = block.place.get(v);
  return { x, y: y + i * (BOX.height + BOX.gap), height: BOX.height };
}

// ---------------------------------------------------------------- the player

const forward = [];
for (let v = 0; v < n; v++) if (data.kind[v] === "o") forward.push(v);
const backward = [];
for (let v = 0; v < n; v++) if (data.visit[v] >= 0) backward[data.visit[v]] = v;
const last = forward.length + backward.length;
let position = last; // how many of these have run
const forwardAt = new Array(n).fill(0);
forward.forEach((v, i) => (forwardAt[v] = i + 1));

const current = () =>
  position === 0
    ? -1
    : position <= forward.length
      ? forward[position - 1]
      : backward[position - forward.length - 1];
const isComputed = (v) => forwardAt[v] <= position;
const gradientHasArrived = (v) => {
  if (!data.gradient[v]) return false;
  if (position === last) return true;
  const from = data.visit[v] >= 0 ? data.visit[v] + 1 : leafArrival(v);
  return position - forward.length >= from;
};

// A leaf has its gradient when the last op that uses it has been visited.
let arrivals = null;
function leafArrival(v) {
  if (arrivals === null) {
    arrivals = new Array(n).fill(Infinity);
    for (let k = 0; k < n; k++) {
      if (data.visit[k] < 0) continue;
      for (const s of inputsOf(k)) {
        const at = data.visit[k] + 2;
        arrivals[s] = arrivals[s] === Infinity ? at : Math.max(arrivals[s], at);
      }
    }
  }
  return arrivals[v];
}

function inputsOf(v) {
  return data.back.slice(inputStart[v], inputStart[v + 1]).map((distance) => v - distance);
}

function go(to) {
  position = Math.max(0, Math.min(last, to));
  element("position").value = position;
  const v = current();
  if (v >= 0) {
    select(v, true);
  } else {
    render();
  }
  element("where-now").textContent = describePosition();
}

function describePosition() {
  if (position === 0) return "before the forward pass";
  const v = current();
  if (position <= forward.length) {
    return `forward ${position} of ${forward.length}: ${nameOf(v)}`;
  }
  const i = position - forward.length;
  return `backward ${i} of ${backward.length}: ${nameOf(v)}`;
}

// ---------------------------------------------------------------- the graph

let selected = -1;

function show(tag, className, parent) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  parent.appendChild(made);
  return made;
}

function stripOf(kind, v) {
  const width = data.stripWidth;
  const cells = strips[kind].subarray(v * width, (v + 1) * width);
  const color = kind === "value" ? "59,117,175" : "196,78,82";
  const stops = [];
  for (let i = 0; i < width; i++) {
    const strength = (cells[i] / 255).toFixed(2);
    stops.push(`rgba(${color},${strength}) ${(100 * i) / width}% ${(100 * (i + 1)) / width}%`);
  }
  return `linear-gradient(to right, ${stops.join(",")})`;
}

function addStrip(kind, v, parent) {
  const strip = show("span", `strip ${kind}`, parent);
  if (kind === "gradient" && !gradientHasArrived(v)) {
    strip.classList.add("empty");
    strip.textContent = data.gradient[v] ? "not reached yet" : "no gradient";
    return;
  }
  if (kind === "value" && (!data.value[v] || !isComputed(v))) {
    strip.classList.add("empty");
    strip.textContent = data.value[v] ? "not computed yet" : "value not recorded";
    return;
  }
  const bad = (kind === "value" ? data.value : data.gradient)[v][4];
  if (bad) strip.classList.add("nonfinite");
  else strip.style.backgroundImage = stripOf(kind, v);
}

const KINDS = { o: "op", l: "leaf", c: "constant" };

function addVertex(v, parent) {
  const { x, y } = placeOf(v);
  const box = show("button", `box ${KINDS[data.kind[v]]}`, parent);
  box.style.transform = `translate(${x}px,${y}px)`;
  box.dataset.vertex = v;
  if (v === selected) box.setAttribute("aria-current", "true");
  if (!isComputed(v)) box.classList.add("later");
  show("span", "name", box).textContent = `${nameOf(v)} ${shapeOf(v)}`;
  addStrip("value", v, box);
  addStrip("gradient", v, box);
  box.addEventListener("click", () => select(v, false));
}

function addFolded(block, parent) {
  const box = show("button", "box folded", parent);
  box.style.transform = `translate(${left[block.column] + PAD}px,${top[block.row] + PAD}px)`;
  box.setAttribute("aria-expanded", "false");
  box.dataset.block = `${block.row},${block.column}`;
  if (selected >= 0 && blockOf[selected] === block) box.setAttribute("aria-current", "true");
  const count = block.vertices.length;
  const column = data.columns[block.column].name;
  show("span", "name", box).textContent = `${data.rows[block.row]} ${column}`;
  show("span", "count", box).textContent = `${count} ${count === 1 ? "op" : "ops"}, open`;
  box.addEventListener("click", () => toggle(block, true));
}

function toggle(block, open) {
  block.open = open;
  layOut();
  render();
  const first = element("graph").querySelector(`[data-vertex="${block.vertices[0]}"]`);
  if (open && first) first.focus();
}

// The range of indices i with edges[i + 1] > from and edges[i] < to.
function range(edges, from, to) {
  let low = 0;
  let high = edges.length - 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (edges[middle + 1] > from) high = middle;
    else low = middle + 1;
  }
  let end = low;
  while (end < edges.length - 1 && edges[end] < to) end++;
  return [low, end];
}

function render() {
  const view = element("graph");
  const began = performance.now();
  const layer = element("boxes");
  const held = document.activeElement && document.activeElement.dataset;
  const focus = held && (held.vertex ?? held.block);
  layer.textContent = "";
  const [c0, c1] = range(left, view.scrollLeft, view.scrollLeft + view.clientWidth);
  const [r0, r1] = range(top, view.scrollTop, view.scrollTop + view.clientHeight);
  const shown = [];
  for (let c = c0; c < c1; c++) {
    const head = show("div", "head", layer);
    head.style.transform = `translate(${left[c] + PAD}px,${view.scrollTop}px)`;
    head.textContent = data.columns[c].name;
    for (let r = r0; r < r1; r++) {
      const block = blocks.get(r + "," + c);
      if (!block) continue;
      if (!block.open) {
        addFolded(block, layer);
        shown.push(block.vertices[0]);
        continue;
      }
      if (block.vertices.length > 1 && !data.columns[c].leaves && !data.open) {
        const fold = show("button", "fold", layer);
        fold.style.transform = `translate(${left[c] + PAD}px,${top[r] + PAD - 20}px)`;
        fold.textContent = `fold ${data.rows[r]} ${data.columns[c].name}`;
        fold.addEventListener("click", () => toggle(block, false));
      }
      const step = BOX.height + BOX.gap;
      const above = view.scrollTop - top[r] - PAD;
      const first = Math.max(0, Math.floor(above / step));
      const end = Math.ceil((above + view.clientHeight) / step);
      for (const v of block.vertices.slice(first, end + 1)) {
        addVertex(v, layer);
        shown.push(v);
      }
    }
  }
  for (let r = r0; r < r1; r++) {
    const label = show("div", "row", layer);
    label.style.transform = `translate(${view.scrollLeft + PAD}px,${top[r] - 6}px)`;
    label.textContent = data.rows[r];
  }
  drawArrows(shown);
  if (focus !== undefined && focus !== null && focus !== false) {
    const again = layer.querySelector(`[data-vertex="${focus}"],[data-block="${focus}"]`);
    if (again) again.focus({ preventScroll: true });
  }
  drawTimes();
  window.lastFrame = performance.now() - began;
}

function drawArrows(shown) {
  const view = element("graph");
  const lines = [];
  const seen = new Set();
  for (const v of shown) {
    const block = blockOf[v];
    for (const target of block.open ? [v] : block.vertices) {
      for (const source of inputsOf(target)) {
        const from = blockOf[source];
        if (from === block && !block.open) continue;
        const weak = data.columns[from.column].leaves && target !== selected;
        if (weak && source !== selected) continue;
        const a = placeOf(source);
        const b = placeOf(target);
        const key = `${a.x},${a.y},${b.x},${b.y}`;
        if (seen.has(key)) continue;
        seen.add(key);
        lines.push(line(a, b, source === selected || target === selected));
      }
    }
  }
  const svg = element("arrows");
  svg.style.transform = `translate(${view.scrollLeft}px,${view.scrollTop}px)`;
  svg.setAttribute("width", view.clientWidth);
  svg.setAttribute("height", view.clientHeight);
  const box = `${view.scrollLeft} ${view.scrollTop} ${view.clientWidth} ${view.clientHeight}`;
  svg.setAttribute("viewBox", box);
  element("lines").innerHTML = lines.join(""); // only numbers are in it
}

function line(a, b, strong) {
  const down = a.x === b.x;
  const x1 = a.x + (down ? BOX.width / 2 : BOX.width);
  const y1 = down ? a.y + a.height : a.y + a.height / 2;
  const x2 = b.x + (down ? BOX.width / 2 : 0);
  const y2 = down ? b.y : b.y + b.height / 2;
  const far = down && y2 - y1 > BOX.gap + 1;
  const bend = far ? BOX.width / 2 + PAD : 0;
  const path = down
    ? `M${x1} ${y1}C${x1 + bend} ${y1 + 8} ${x2 + bend} ${y2 - 8} ${x2} ${y2}`
    : `M${x1} ${y1}C${x1 + 30} ${y1} ${x2 - 30} ${y2} ${x2} ${y2}`;
  return `<path d="${path}" class="${strong ? "strong" : ""}" marker-end="url(#head)"/>`;
}

// ---------------------------------------------------------------- the side panel

function select(v, scroll) {
  selected = v;
  if (scroll) {
    const view = element("graph");
    const { x, y } = placeOf(v);
    if (x < view.scrollLeft || x + BOX.width > view.scrollLeft + view.clientWidth) {
      view.scrollLeft = x - view.clientWidth / 2;
    }
    if (y < view.scrollTop + HEAD || y + BOX.height > view.scrollTop + view.clientHeight) {
      view.scrollTop = y - view.clientHeight / 2;
    }
  }
  render();
  fillPanel(v);
}

function statistics(list, v) {
  const [least, largest, mean, norm, bad = 0] = list[v];
  const finite = `${least} to ${largest}, mean ${mean}, norm ${norm}`;
  return bad ? `${bad} not finite; else ${finite}` : finite;
}

function fillPanel(v) {
  const gradient = gradientHasArrived(v)
    ? statistics(data.gradient, v)
    : data.gradient[v]
      ? "not reached yet"
      : "none arrived";
  const facts = [
    ["kind", KINDS[data.kind[v]]],
    ["shape", shapeOf(v) || "not known"],
    ["scope", scopeOf(v)],
    ["time step", data.t[v] < 0 ? "" : String(data.t[v])],
    ["rule", told(v, 4)],
    ["line", lineOf(v)],
    ["inputs", inputsOf(v).map((s) => nameOf(s)).join(", ")],
    ["saved", data.kind[v] === "o" ? `${told(v, 5).toLocaleString("en")} bytes` : ""],
    ["value", data.value[v] ? statistics(data.value, v) : "not recorded"],
    ["gradient", gradient],
  ];
  element("panel-title").textContent = `${nameOf(v)} (${v})`;
  const list = element("facts");
  list.textContent = "";
  for (const [name, fact] of facts) {
    if (!fact) continue;
    show("dt", "", list).textContent = name;
    show("dd", "", list).textContent = fact;
  }
}

// ---------------------------------------------------------------- the time strip

// For each row: the gradients that its results have, step by step; one line for each kind of op.
function timeSeries() {
  const found = new Map();
  const isResult = new Uint8Array(n);
  for (let v = 0; v < n; v++) {
    for (const s of inputsOf(v)) if (blockOf[s] !== blockOf[v]) isResult[s] = 1;
  }
  for (let v = 0; v < n; v++) {
    if (data.t[v] < 0 || !isResult[v] || !data.gradient[v] || data.kind[v] !== "o") continue;
    const key = `${data.rows[data.row[v]]}: ${nameOf(v)}`;
    if (!found.has(key)) found.set(key, new Map());
    const [, , , norm, bad = 0] = data.gradient[v];
    const before = found.get(key).get(data.t[v]) || { square: 0, bad: 0 };
    before.square += norm * norm;
    before.bad += bad;
    found.get(key).set(data.t[v], before);
  }
  return [...found].filter(([, steps]) => steps.size > 1);
}

const series = timeSeries();
const COLORS = ["#3b75af", "#c44e52", "#4c8c4a", "#8660a8", "#a0701e", "#3a8a8c"];

function drawTimes() {
  if (!series.length) return;
  const canvas = element("times");
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const { low, high, T } = timeRange();
  const x = (t) => 60 + ((t + 0.5) * (width - 70)) / T;
  const y = (log) => 8 + ((high - log) * (height - 30)) / Math.max(1, high - low);
  const ink = getComputedStyle(document.body).color;
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = ink;
  pen.strokeStyle = "rgba(128,128,128,0.4)";
  const every = Math.ceil((high - low) / 5) || 1;
  for (let log = Math.ceil(low); log <= high; log += every) {
    pen.fillText(`1e${log}`, 8, y(log) + 4);
    pen.beginPath();
    pen.moveTo(56, y(log));
    pen.lineTo(width, y(log));
    pen.stroke();
  }
  pen.fillText("t = 0", x(0) - 10, height - 4);
  pen.fillText(`t = ${T - 1}`, x(T - 1) - 44, height - 4);
  series.forEach(([, steps], i) => drawSeries(pen, steps, COLORS[i % COLORS.length], x, y));
  const now = selected >= 0 ? data.t[selected] : -1;
  if (now >= 0) {
    pen.fillStyle = "rgba(128,128,128,0.25)";
    pen.fillRect(x(now) - 2, 0, 4, height - 18);
  }
}

function timeRange() {
  let low = Infinity;
  let high = -Infinity;
  let T = 1;
  for (const [, steps] of series) {
    for (const [t, { square }] of steps) {
      T = Math.max(T, t + 1);
      if (square > 0) {
        low = Math.min(low, Math.log10(square) / 2);
        high = Math.max(high, Math.log10(square) / 2);
      }
    }
  }
  return low > high ? { low: -1, high: 0, T } : { low: Math.floor(low), high: Math.ceil(high), T };
}

function drawSeries(pen, steps, color, x, y) {
  pen.strokeStyle = pen.fillStyle = color;
  pen.lineWidth = 1.8;
  pen.beginPath();
  let drawn = false;
  for (const [t, { square, bad }] of [...steps].sort((a, b) => a[0] - b[0])) {
    if (bad) {
      for (let k = 0; k < 60; k += 6) pen.fillRect(x(t) - 3, 8 + k, 6, 2); // hatched
      drawn = false;
    } else if (square > 0) {
      const height = y(Math.log10(square) / 2);
      if (drawn) pen.lineTo(x(t), height);
      else pen.moveTo(x(t), height);
      drawn = true;
    }
  }
  pen.stroke();
}

function nameSeries() {
  const legend = element("legend");
  series.forEach(([name], i) => {
    const item = show("span", "key", legend);
    show("span", "dot", item).style.background = COLORS[i % COLORS.length];
    show("span", "", item).textContent = name;
  });
  element("times").hidden = !series.length;
}

// ---------------------------------------------------------------- search, table, keys

function matches(words) {
  const wanted = words.toLowerCase();
  const named = [];
  const others = []; // those that have the words elsewhere come behind
  for (let v = 0; v < n && named.length + others.length < 200; v++) {
    const place = `${scopeOf(v)} ${lineOf(v)} ${shapeOf(v)} t=${data.t[v]}`;
    if (nameOf(v).toLowerCase().includes(wanted)) named.push(v);
    else if (place.toLowerCase().includes(wanted)) others.push(v);
  }
  return [...named, ...others];
}

function search() {
  const words = element("search").value;
  const list = element("results");
  list.textContent = "";
  if (!words) return;
  const found = matches(words);
  const count = show("li", "count", list);
  count.textContent = found.length === 200 ? "the first 200" : `${found.length} found`;
  for (const v of found.slice(0, 50)) {
    const item = show("button", "result", show("li", "", list));
    const step = data.t[v] < 0 ? "" : ` t = ${data.t[v]}`;
    item.textContent = `${nameOf(v)} ${scopeOf(v)}${step}`;
    item.addEventListener("click", () => select(v, true));
  }
}

const ROW = 26;

function renderTable() {
  const view = element("table");
  const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 5);
  const end = Math.min(n, first + Math.ceil(view.clientHeight / ROW) + 10);
  const body = element("table-rows");
  body.textContent = "";
  element("above").style.height = first * ROW + "px";
  element("below").style.height = (n - end) * ROW + "px";
  for (let v = first; v < end; v++) {
    const row = show("tr", "", body);
    const step = data.t[v] < 0 ? "" : data.t[v];
    const value = data.value[v] ? data.value[v][3] : "";
    const gradient = gradientHasArrived(v) ? data.gradient[v][3] : "";
    const cells = [v, nameOf(v), scopeOf(v), step, shapeOf(v)];
    for (const cell of [...cells, value, gradient]) show("td", "", row).textContent = cell;
  }
}

function showTable(on) {
  element("table").hidden = !on;
  element("graph").hidden = on;
  element("as-table").setAttribute("aria-pressed", String(on));
  if (on) renderTable();
  else render();
}

function nextNonfinite() {
  const order = [...forward, ...backward];
  const at = position === last ? 0 : position;
  for (let i = 0; i < order.length; i++) {
    const k = (at + i) % order.length;
    const list = k < forward.length ? data.value : data.gradient;
    if (list[order[k]] && list[order[k]][4]) return go(k + 1);
  }
  element("where-now").textContent = "all that is known is finite";
}

function onKey(event) {
  if (event.target.tagName === "INPUT" && event.target.type === "search") return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    ArrowLeft: () => go(position - 1),
    ArrowRight: () => go(position + 1),
    "/": () => element("search").focus(),
    b: nextNonfinite,
  }[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}

function start() {
  element("app").hidden = false;
  element("position").max = last;
  element("first").addEventListener("click", () => go(0));
  element("back").addEventListener("click", () => go(position - 1));
  element("on").addEventListener("click", () => go(position + 1));
  element("last").addEventListener("click", () => go(last));
  element("nonfinite").addEventListener("click", nextNonfinite);
  element("as-table").addEventListener("click", () => showTable(element("table").hidden));
  element("position").addEventListener("input", (e) => go(Number(e.target.value)));
  element("search").addEventListener("input", search);
  element("graph").addEventListener("scroll", () => requestAnimationFrame(render));
  element("table").addEventListener("scroll", () => requestAnimationFrame(renderTable));
  window.addEventListener("resize", render);
  document.addEventListener("keydown", onKey);
  nameSeries();
  layOut();
  render();
  element("position").value = position;
  element("where-now").textContent = describePosition();
}

start();
