"use strict";
// Zoom, read-out and legend of the charts. Without it they are still there.
const [LEFT, RIGHT, TOP, BOTTOM, UNITS] = [50, 8, 8, 34, 1000];
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function niceTicks(low, high, count = 5) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const off = (m) => Math.abs(Math.log((m * power) / rough));
  const step = power * [1, 2, 5, 10].reduce((a, b) => (off(b) < off(a) ? b : a));
  const ticks = [];
  for (let i = Math.ceil(low / step); i <= Math.floor(high / step); i++) ticks.push(i * step + 0);
  return ticks;
}

const short = (x, digits) => String(Number(x.toPrecision(digits)));

function enliven(figure) {
  const svg = figure.querySelector("svg"), plane = figure.querySelector(".plane");
  const ticks = figure.querySelector(".ticks"), area = figure.querySelector(".catch");
  const { width: W, height: H } = svg.viewBox.baseVal;
  const w = W - LEFT - RIGHT, h = H - TOP - BOTTOM, log = figure.dataset.log === "1";
  const whole = ["x0", "x1", "y0", "y1"].map((key) => Number(figure.dataset[key]));
  let view = whole.slice();

  function show(next) {
    const least = [0, 2].some((i) => next[i + 1] - next[i] < 1e-6 * (whole[i + 1] - whole[i]));
    if (least) return;
    view = next;
    const [x0, x1, y0, y1] = view, [X0, X1, Y0, Y1] = whole;
    const sx = UNITS / (X1 - X0), sy = UNITS / (Y1 - Y0);
    plane.setAttribute("viewBox", [(x0 - X0) * sx, (Y1 - y1) * sy, (x1 - x0) * sx, (y1 - y0) * sy].join(" "));
    ticks.replaceChildren();
    for (const t of niceTicks(x0, x1)) {
      const x = LEFT + (w * (t - x0)) / (x1 - x0);
      ticks.append(element("text", { class: "x", x, y: TOP + h + 14 }, short(t, 6)));
    }
    for (const t of niceTicks(y0, y1)) {
      const y = TOP + (h * (y1 - t)) / (y1 - y0);
      ticks.append(element("line", { x1: LEFT, x2: LEFT + w, y1: y, y2: y }));
      ticks.append(element("text", { class: "y", x: LEFT - 5, y: y + 4 }, log ? short(10 ** t, 4) : short(t, 6)));
    }
  }

  function zoom(factor) {
    const next = [];
    for (const i of [0, 2]) {
      const half = (factor * (view[i + 1] - view[i])) / 2, middle = (view[i] + view[i + 1]) / 2;
      next.push(Math.max(middle - half, whole[i]), Math.min(middle + half, whole[i + 1]));
    }
    show(next);
  }

  const tools = document.createElement("div"), readout = document.createElement("span");
  tools.className = "tools";
  readout.className = "readout";
  for (const [label, name, act] of [
    ["+", "Zoom in", () => zoom(0.5)],
    ["−", "Zoom out", () => zoom(2)],
    ["whole", "Show the whole chart", () => show(whole.slice())],
  ]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", act);
    tools.append(button);
  }
  tools.append(readout);
  figure.append(tools);

  function place(event) {
    const box = svg.getBoundingClientRect(), scale = W / box.width;
    const x = ((event.clientX - box.left) * scale - LEFT) / w;
    const y = ((event.clientY - box.top) * scale - TOP) / h;
    return [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)];
  }

  function read([fx]) {
    const at = view[0] + fx * (view[1] - view[0]), parts = [];
    let nearest = null;
    for (const path of figure.querySelectorAll("path[data-line]:not(.hidden)")) {
      let best = null;
      for (const pair of path.getAttribute("d").split(/[ML]/).slice(1)) {
        const [px, py] = pair.split(" ").map(Number);
        const x = whole[0] + (px / UNITS) * (whole[1] - whole[0]);
        if (!best || Math.abs(x - at) < Math.abs(best[0] - at)) best = [x, py];
      }
      if (!best) continue;
      nearest = best[0];
      const y = whole[3] - (best[1] / UNITS) * (whole[3] - whole[2]);
      parts.push(`${path.dataset.name} ${short(log ? 10 ** y : y, 4)}`);
    }
    readout.textContent = nearest === null ? "" : `${short(nearest, 4)}: ${parts.join(", ")}`;
  }

  let start = null, box = null;
  const drop = () => { box?.remove(); start = box = null; };
  area.addEventListener("pointerdown", (event) => {
    start = place(event);
    area.setPointerCapture(event.pointerId);
    box = element("rect", { class: "select", width: 0, height: 0 });
    svg.insertBefore(box, area);
  });
  area.addEventListener("pointermove", (event) => {
    const here = place(event);
    read(here);
    if (!start) return;
    const wide = event.pointerType === "touch"; // a finger chooses epochs only
    const [a, b] = wide ? [0, 1] : [start[1], here[1]];
    box.setAttribute("x", LEFT + w * Math.min(start[0], here[0]));
    box.setAttribute("width", w * Math.abs(start[0] - here[0]));
    box.setAttribute("y", TOP + h * Math.min(a, b));
    box.setAttribute("height", h * Math.abs(a - b));
  });
  area.addEventListener("pointerup", (event) => {
    if (!start) return;
    const here = place(event), from = start, touch = event.pointerType === "touch";
    drop();
    if (Math.abs(here[0] - from[0]) < 0.03) return;
    const [x0, x1, y0, y1] = view, dx = x1 - x0, dy = y1 - y0;
    const low = touch || Math.abs(here[1] - from[1]) < 0.03 ? [0, 1] : [Math.min(from[1], here[1]), Math.max(from[1], here[1])];
    show([x0 + dx * Math.min(from[0], here[0]), x0 + dx * Math.max(from[0], here[0]), y1 - dy * low[1], y1 - dy * low[0]]);
  });
  area.addEventListener("pointercancel", drop);
  area.addEventListener("dblclick", () => show(whole.slice()));
}

document.querySelectorAll(".chart").forEach(enliven);
document.querySelectorAll(".chip").forEach((chip) => {
  chip.addEventListener("click", () => {
    const shown = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", String(shown));
    for (const path of document.querySelectorAll("path[data-name]"))
      if (path.dataset.name === chip.dataset.name) path.classList.toggle("hidden", !shown);
  });
});
document.documentElement.dataset.ready = "1";
