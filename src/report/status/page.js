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

// What there is of a session: how it is called, and how it is written.
const columns = [
  ["client", "Client"], ["user", "User"], ["command", "Command"], ["destination", "Destination"],
  ["reached", "Reached"], ["via", "Via"], ["up", "Up", bytes], ["down", "Down", bytes],
  ["age", "Age", time], ["idle", "Idle", time],
];
const most = 500;
let data = null, sorted = { by: "age", falling: false }, rows = new Map(), missed = 0;

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
  for (const th of $("columns").children) {
    if (th.dataset.key === by) th.ariaSort = falling ? "descending" : "ascending";
    else th.removeAttribute("aria-sort");
  }
  $("order").value = by + (falling ? "-" : "+");
  if (data) drawSessions();
}

function row() {
  const tr = document.createElement("tr");
  for (const [key, name, write] of columns) {
    const td = make("td", tr);
    td.className = write ? key + " number" : key;
    td.dataset.name = name;
    if (key === "command") make("span", td);
  }
  return tr;
}

function drawSessions() {
  const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.sessions.filter(session => {
    const text = wanted.length ? words(session) : "";
    return wanted.every(word => text.includes(word));
  }).sort(compare);
  const before = rows;
  rows = new Map();
  found.slice(0, most).forEach((session, index) => {
    const tr = before.get(session.id) ?? row();
    before.delete(session.id);
    rows.set(session.id, tr);
    columns.forEach(([key, , write], index) => {
      const td = tr.children[index], value = session[key];
      let text = value === null ? "–" : write ? write(value) : value;
      if (key === "destination" && session.destinations > 1) text += ` +${session.destinations - 1}`;
      put(td.firstElementChild ?? td, text);
      td.classList.toggle("none", value === null);
      td.classList.toggle("same", key === "reached" && value === session.destination);
      td.title = write || value === null ? "" : value;
    });
    const there = $("rows").children[index];
    if (there !== tr) $("rows").insertBefore(tr, there ?? null);
  });
  before.forEach(tr => tr.remove());
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
  const [width, height, left, under] = [svg.clientWidth, svg.clientHeight, 62, 20];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const top = nice(Math.max(1000, ...up, ...down));
  const x = index => left + (width - left - 4) * (index + length - down.length) / (length - 1);
  const y = value => 8 + (height - under - 8) * (1 - value / top);
  const line = values => values.map((value, index) =>
    `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const draw = (name, attributes, text) => {
    const element = svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text) element.textContent = text;
  };
  svg.replaceChildren();
  for (const part of [0, .5, 1]) {
    const at = y(part * top);
    draw("path", { class: "grid", d: `M${left} ${at}H${width - 4}` });
    const told = part ? bytes(part * top) + "/s" : "0";
    draw("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, told);
  }
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
  put($("at"), `peak ${bytes(peak)}/s`);
  if (pointer !== null && down.length) {
    const share = (pointer - left) / (width - left - 4) * (length - 1) - (length - down.length);
    const index = Math.max(0, Math.min(down.length - 1, Math.round(share)));
    draw("path", { class: "at", d: `M${x(index)} 8V${y(0)}` });
    put($("at"), `${time(down.length - 1 - index)} ago: ${bytes(down[index])}/s to clients, `
      + `${bytes(up[index])}/s from them`);
  }
}
const nice = value => {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find(step => step * power >= value) * power;
};

function draw() {
  const { history: { up, down }, bytes: sums } = data;
  const last = list => bytes(list.at(-1) ?? 0) + "/s";
  document.title = `${count(data.slots.used)} sessions, ${last(down)} · tabi`;
  put($("version"), data.version);
  put($("running"), `up ${time(data.uptime)}`);
  put($("state"), data.draining ? "draining: no new clients" : "serving");
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

for (const [key, name, write] of columns) {
  const th = make("th", $("columns")), falling = key === "up" || key === "down";
  th.dataset.key = key;
  th.className = write ? "number" : "";
  make("button", th, name).onclick = () =>
    sort(key, sorted.by === key ? !sorted.falling : falling);
  for (const sign of falling ? "-+" : "+-") {
    make("option", $("order"), `${name} ${sign === "+" ? "▲" : "▼"}`).value = key + sign;
  }
}
$("order").onchange = ({ target: { value } }) => sort(value.slice(0, -1), value.endsWith("-"));
$("filter").oninput = () => data && drawSessions();
$("chart").onpointermove = event => { pointer = event.offsetX; if (data) drawChart(); };
$("chart").onpointerleave = () => { pointer = null; if (data) drawChart(); };
document.onvisibilitychange = () => document.hidden ? clearTimeout(waiting) : ask();
onresize = () => data && drawChart();
sort("age", false);
ask();
