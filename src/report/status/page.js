"use strict";
// Whatever comes from a client goes into the page by textContent, never as markup.
const $ = id => document.getElementById(id);
const make = (name, parent, text) => {
  const element = parent.appendChild(document.createElement(name));
  if (text !== undefined) element.textContent = text;
  return element;
};
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const count = number => number.toLocaleString("en");
const bytes = number => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; number >= 999.5 && unit < units.length - 1; unit++) number /= 1000;
  return (unit && number < 99.5 ? number.toPrecision(number < 9.95 ? 2 : 3) : Math.round(number))
    + " " + units[unit];
};
const time = seconds => {
  const [days, hours, minutes] = [86400, 3600, 60].map(unit => Math.floor(seconds / unit));
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
};

const rate = number => bytes(number) + "/s";

// What there is of a session: how it is called, and how it is written.
const columns = [
  ["client", "Client"], ["user", "User"], ["command", "Command"], ["destination", "Destination"],
  ["reached", "Reached"], ["via", "Via"], ["up", "Up", bytes], ["down", "Down", bytes],
  ["age", "Age", time], ["idle", "Idle", time],
];
// And of a client or a user.
const sums = [
  ["name", "Client"], ["sessions", "Sessions", count], ["down-rate", "Down now", rate],
  ["up-rate", "Up now", rate], ["down", "Down", bytes], ["up", "Up", bytes],
  ["limit", "Limit", limit => limit],
];
const most = 500, mostNames = 10;
let data = null, sorted = { by: "age", falling: false }, missed = 0;

const words = session =>
  columns.slice(0, 6).map(([key]) => session[key] ?? "").join(" ").toLowerCase();
const compare = (a, b) => {
  const [x, y] = [a[sorted.by], b[sorted.by]];
  let order = x === y ? 0 : x === null ? 1 : y === null ? -1 : typeof x === "number" ? x - y
    : x.localeCompare(y, "en", { numeric: true });
  if (sorted.falling && x !== null && y !== null) order = -order;
  return order || b.id - a.id;
};

function sort(by, falling) {
  sorted = { by, falling };
  for (const th of $("rows").tHead.rows[0].children) {
    if (th.dataset.key === by) th.ariaSort = falling ? "descending" : "ascending";
    else th.removeAttribute("aria-sort");
  }
  $("order").value = by + (falling ? "-" : "+");
  if (data) drawSessions();
}

function row(columns) {
  const tr = document.createElement("tr");
  for (const [key, name, write] of columns) {
    const td = make("td", tr);
    td.className = write ? key + " number" : key;
    td.dataset.name = name;
    if (key === "command") make("span", td);
    if (key === "name") make("button", td).onclick = event => {
      $("filter").value = event.target.textContent;
      $("filter").oninput();
    };
  }
  return tr;
}

// Writes a row for each of `items`, and keeps the rows of those that were there before.
function drawRows(table, columns, items) {
  const body = table.tBodies[0], before = table.kept ?? new Map();
  table.kept = new Map();
  items.forEach((item, index) => {
    const tr = before.get(item.id) ?? row(columns);
    before.delete(item.id);
    table.kept.set(item.id, tr);
    columns.forEach(([key, , write], index) => {
      const td = tr.children[index], value = item[key];
      let text = value === null ? "–" : write ? write(value) : value;
      if (key === "destination" && item.destinations > 1) text += ` +${item.destinations - 1}`;
      put(td.firstElementChild ?? td, text);
      td.classList.toggle("none", value === null);
      td.classList.toggle("same", key === "reached" && value === item.destination);
      td.title = write || value === null ? "" : value;
    });
    const there = body.children[index];
    if (there !== tr) body.insertBefore(tr, there ?? null);
  });
  before.forEach(tr => tr.remove());
}

// What a user may have at the most.
const limit = it => [it.max === null ? "" : `${count(it.max)} sessions`,
  it["max-rate"] === null ? "" : rate(it["max-rate"])].filter(Boolean).join(", ") || null;

function drawNames() {
  const named = $("by").value, all = [...data[named]], isNow = $("first").value === "now";
  if (!isNow) all.sort((a, b) => b.bytes.up + b.bytes.down - a.bytes.up - a.bytes.down);
  drawRows($("names"), sums, all.slice(0, mostNames).map(({ name, sessions, ...it }) => ({
    id: `${named} ${name}`, name, sessions, ...it.bytes, "up-rate": it.rate.up,
    "down-rate": it.rate.down, limit: limit(it),
  })));
  document.body.classList.toggle("no-limit", !all.some(limit));
  $("by").hidden = !data.users.length;
  put($("names").tHead.rows[0].firstElementChild, named === "users" ? "User" : "Client");
  const which = isNow ? "that move most now" : "that have moved most";
  put($("most"), all.length > mostNames ? `the ${mostNames} ${which}` : "");
  $("nobody").hidden = all.length > 0;
}

function drawSessions() {
  const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.sessions.filter(session => {
    const text = wanted.length ? words(session) : "";
    return wanted.every(word => text.includes(word));
  }).sort(compare);
  drawRows($("rows"), columns, found.slice(0, most));
  for (const key of ["user", "via"]) {
    const is = data.sessions.some(session => session[key] !== null);
    document.body.classList.toggle(`no-${key}`, !is);
  }
  const all = data.sessions.length;
  put($("shown"), found.length > most ? `first ${most} of ${count(found.length)}`
    : wanted.length ? `${count(found.length)} of ${count(all)}` : "");
  $("nothing").hidden = found.length > 0;
  put($("nothing"), all ? "No live session matches." : "No session is live.");
}

function drawUse(id, { used, max }) {
  const place = $(id), part = used === null || !max ? 0 : used / max;
  put(place, "");
  place.append(used === null ? "–" : count(used));
  if (max) make("small", place, ` of ${count(max)}`);
  const bar = place.nextElementSibling.firstElementChild;
  bar.style.width = `${used && Math.max(1, 100 * part)}%`;
  bar.className = part > .95 ? "bad" : part > .8 ? "warn" : "";
}

function drawCounts(id, counts, none, tone) {
  const place = $(id), all = Object.entries(counts).filter(([, number]) => number);
  all.sort((a, b) => b[1] - a[1]);
  const top = all.length ? all[0][1] : 1;
  place.replaceChildren();
  for (const [word, number] of all) {
    const line = make("div", place);
    make("dt", line, word);
    make("dd", line, count(number));
    const bar = make("i", Object.assign(make("div", line), { className: "bar" }));
    bar.style.width = `${Math.max(1, 100 * number / top)}%`;
    bar.className = tone(word);
  }
  if (!all.length) make("p", place, none).className = "quiet";
}

let pointer = null;
function drawChart() {
  const svg = $("chart"), { up, down } = data.history, length = 300;
  const [width, height, under] = [svg.clientWidth, svg.clientHeight, 20];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const draw = (name, attributes, text) => {
    const element = svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text) element.textContent = text;
    return element;
  };
  const top = nice(Math.max(1000, ...up, ...down)), parts = [0, .5, 1];
  const scale = parts.map(part => draw("text", { "text-anchor": "end" }, part ? rate(part * top) : "0"));
  // As wide as the longest of them is in this font.
  const left = Math.ceil(Math.max(...scale.map(text => text.getComputedTextLength()))) + 8;
  const x = index => left + (width - left - 4) * (index + length - down.length) / (length - 1);
  const y = value => 8 + (height - under - 8) * (1 - value / top);
  const line = values => values.map((value, index) =>
    `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  parts.forEach((part, index) => {
    const at = y(part * top);
    draw("path", { class: "grid", d: `M${left} ${at}H${width - 4}` });
    scale[index].setAttribute("x", left - 8);
    scale[index].setAttribute("y", at + 4);
  });
  for (const minutes of [5, 4, 3, 2, 1, 0]) {
    const anchor = minutes === 5 ? "start" : minutes ? "middle" : "end";
    const at = left + (width - left - 4) * (1 - minutes / 5);
    const told = minutes ? `−${minutes} min` : "now";
    if (minutes % 5 === 0 || width > 480)
      draw("text", { x: at, y: height - 4, "text-anchor": anchor }, told);
  }
  if (down.length > 1) {
    const floor = `L${x(down.length - 1)} ${y(0)}L${x(0)} ${y(0)}Z`;
    draw("path", { class: "fill", d: line(down) + floor });
    draw("path", { class: "up", d: line(up) });
    draw("path", { class: "down", d: line(down) });
  }
  const peak = Math.max(0, ...up, ...down);
  put($("at"), `peak ${rate(peak)}`);
  if (pointer !== null && down.length) {
    const share = (pointer - left) / (width - left - 4) * (length - 1) - (length - down.length);
    const index = Math.max(0, Math.min(down.length - 1, Math.round(share)));
    draw("path", { class: "at", d: `M${x(index)} 8V${y(0)}` });
    put($("at"), `${time(down.length - 1 - index)} ago: ${rate(down[index])} to clients, `
      + `${rate(up[index])} from them`);
  }
}
const nice = value => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find(step => step * power >= value) * power;
};

function draw() {
  const { history: { up, down }, bytes: sums } = data;
  const last = list => rate(list.at(-1) ?? 0);
  document.title = `${count(data.slots.used)} sessions, ${last(down)} · tabi`;
  put($("version"), data.version);
  const earlier = data.earlier ? `; ${count(data.earlier)} sessions of earlier processes` : "";
  put($("state"), (data.draining ? "draining: no new clients" : "serving") + earlier);
  put($("running"), `up ${time(data.uptime)}`);
  $("state").className = data.draining ? "warn" : "good";
  put($("down"), last(down));
  put($("up"), last(up));
  for (const way of ["down", "up"]) {
    const datagrams = data.datagrams[way];
    put($(way + "-sum"), bytes(sums[way]) + " in all");
    put($(way + "-datagrams"), datagrams ? count(datagrams) + " datagrams" : "");
  }
  put($("opened"), `${count(data.opened)} in all`);
  for (const id of ["slots", "threads", "descriptors"]) drawUse(id, data[id]);
  drawCounts("outcomes", data.outcomes, "No session has ended yet.",
    word => word === "closed" ? "good" : "warn");
  drawCounts("refused", data.refused, "Nobody was turned away.", () => "warn");
  drawCounts("lookups", data.lookups, "No name was looked up yet.",
    word => word === "failed" ? "warn" : word === "remembered" ? "good" : "");
  const { found, failed, remembered } = data.lookups;
  put($("remembered"), remembered
    ? `${Math.round(100 * remembered / (found + failed + remembered))} % remembered` : "");
  drawChart();
  drawNames();
  drawSessions();
}

// A large answer is asked for less often.
let waiting;
async function ask() {
  clearTimeout(waiting);
  const begin = performance.now();
  try {
    const signal = AbortSignal.timeout(8000);
    const answer = await fetch("sessions", { cache: "no-store", signal });
    if (!answer.ok) throw new Error(answer.status);
    data = await answer.json();
    missed = 0;
    draw();
  } catch {
    missed++;
  }
  const gone = missed > 1;
  document.body.classList.toggle("stale", gone);
  if (gone && $("gone").hidden) {
    const now = new Date().toLocaleTimeString();
    put($("gone"), `The server has not answered since ${now}. The page shows what it said last.`);
    put($("state"), "gone");
    $("state").className = "bad";
    document.title = "gone · tabi";
  }
  $("gone").hidden = !gone;
  const pause = Math.max(1000, 10 * (performance.now() - begin));
  if (!document.hidden) waiting = setTimeout(ask, Math.min(pause, 10000));
}

for (const [key, name, write] of sums) {
  make("th", $("names").tHead.rows[0], name).className = write ? key + " number" : key;
}
for (const [key, name, write] of columns) {
  const th = make("th", $("rows").tHead.rows[0]), falling = key === "up" || key === "down";
  th.dataset.key = key;
  th.className = write ? key + " number" : key;
  make("button", th, name).onclick = () =>
    sort(key, sorted.by === key ? !sorted.falling : falling);
  for (const sign of falling ? "-+" : "+-") {
    make("option", $("order"), `${name} ${sign === "+" ? "▲" : "▼"}`).value = key + sign;
  }
}
$("order").onchange = ({ target: { value } }) => sort(value.slice(0, -1), value.endsWith("-"));
$("by").onchange = $("first").onchange = () => data && drawNames();
$("filter").oninput = () => data && drawSessions();
$("chart").onpointermove = event => { pointer = event.offsetX; if (data) drawChart(); };
$("chart").onpointerleave = () => { pointer = null; if (data) drawChart(); };
document.onvisibilitychange = () => document.hidden ? clearTimeout(waiting) : ask();
onresize = () => data && drawChart();
sort("age", false);
ask();
