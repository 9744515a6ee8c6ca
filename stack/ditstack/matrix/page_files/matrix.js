"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (selector) => document.querySelector(selector);
  const make = (tag, given = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), given);
    made.append(...inside);
    return made;
  };
  const SVG = "http://www.w3.org/2000/svg";
  const draw = (tag, given = {}, ...inside) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };

  // the cell that is open

  const dialog = find("#cell");
  let opener = null;

  function open(name) {
    const cell = data.cells[name];
    if (!cell) return;
    opener = document.activeElement;
    find("#cell-title").replaceChildren(cell.title + " ", make("span", { className: "status " + cell.status, textContent: cell.status }));
    find("#cell-body").replaceChildren(...reasons(cell), ...pictures(cell), ...measures(cell), ...interaction(cell), ...recipe(cell));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    history.replaceState(null, "", "#" + encodeURIComponent(name));
  }

  function reasons(cell) {
    const said = cell.contradiction ? [cell.contradiction, ...cell.reasons] : cell.reasons;
    return said.map((text) => make("p", { textContent: text }));
  }

  function pictures(cell) {
    const baseline = data.cells[cell.baseline];
    if (!baseline) return cell.pictures.map((at, place) => make("img", { className: "alone", src: data.sources[at], alt: cell.title + ": " + data.pictured[place] }));
    if (!cell.pictures.length) return [];
    const plain = make("img"), stacked = make("img", { className: "stacked" });
    const pair = make("div", { className: "pair" }, plain, stacked, make("span", { textContent: "plain" }), make("span", { textContent: "stacked" }));
    const choose = make("select", {}, ...data.pictured.map((prompt, at) => make("option", { value: at, textContent: prompt })));
    const slide = make("input", { type: "range", min: 0, max: 100, value: 50, id: "slide" });
    const check = make("input", { type: "checkbox", id: "difference" });
    const show = () => {
      const at = Number(choose.value);
      plain.src = data.sources[baseline.pictures[at]];
      stacked.src = data.sources[cell.pictures[at]];
      plain.alt = "Without acceleration: " + data.pictured[at];
      stacked.alt = cell.title + ": " + data.pictured[at];
      pair.style.setProperty("--at", slide.value + "%");
      pair.classList.toggle("difference", check.checked);
      slide.setAttribute("aria-valuetext", slide.value + " % plain, the rest stacked");
    };
    for (const one of [choose, slide, check]) one.addEventListener("input", show);
    show();
    const ends = make("div", { className: "ends" }, make("span", { textContent: "plain" }), make("span", { textContent: "stacked" }));
    const controls = make("div", { className: "controls" },
      make("label", {}, "prompt ", choose),
      make("label", { htmlFor: "slide", textContent: "slide between plain and stacked" }), slide, ends,
      make("label", { className: "check" }, check, "their difference, 8 times as bright"));
    return [make("div", { className: "compare" }, pair, controls)];
  }

  function measures(cell) {
    const list = make("dl", { className: "measures" });
    const add = (title, text, interval) =>
      list.append(make("div", {}, make("dt", { textContent: title }), make("dd", {}, text, make("small", { textContent: interval }))));
    if (cell.steps) add("steps", cell.steps, "");
    for (const [key, [, text, interval]] of Object.entries(cell.figures)) add(data.columns[key].label, text, interval);
    return list.children.length ? [make("h3", { textContent: "Measured" }), list] : [];
  }

  function interaction(cell) {
    const found = cell.interaction;
    if (!found) return [];
    const parts = make("ul", {}, ...found.parts.map(([name, title, text]) => {
      const link = make("button", { type: "button", className: "link", textContent: title });
      link.addEventListener("click", () => open(name));
      return make("li", {}, link, " alone: relative L2 ", make("strong", { textContent: text }));
    }));
    const [, beyond, interval] = cell.figures.interaction;
    const text = `Predicted from its parts ${found.predicted}, measured ${found.measured}: ${beyond} beyond` + (interval ? ` (${interval}).` : ".");
    return [make("h3", { textContent: "Interaction with its parts" }), parts, make("p", { textContent: text })];
  }

  function recipe(cell) {
    if (!cell.recipe) return [];
    const text = make("pre", { textContent: cell.recipe, tabIndex: 0 });
    text.setAttribute("aria-label", "The recipe");
    const button = make("button", { type: "button", id: "copy", textContent: "Copy the recipe" });
    const said = make("span", { role: "status" });
    button.addEventListener("click", async () => { said.textContent = (await copied(cell.recipe, text)) ? " Copied." : " Selected: press Ctrl+C."; });
    return [make("h3", { textContent: "Recipe" }), button, said, text];
  }

  async function copied(text, shown) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      getSelection().selectAllChildren(shown);
      return document.execCommand("copy");
    }
  }

  dialog.addEventListener("close", () => {
    history.replaceState(null, "", location.pathname + location.search);
    if (opener && opener.isConnected) opener.focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  find("#close").addEventListener("click", () => dialog.close());
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-open]");
    if (link) open(link.dataset.open);
    const copy = event.target.closest("[data-copy]");
    if (copy) copyOf(copy);
  });

  async function copyOf(button) {
    const name = button.dataset.copy, text = data.cells[name].recipe;
    try {
      await navigator.clipboard.writeText(text);
      button.nextElementSibling.textContent = " Copied.";
    } catch {
      open(name);
    }
  }
  if (!find("#table")) return;

  // filters

  const form = find("#filters");
  const rows = [...document.querySelectorAll("#table tbody tr")];
  const word = (cell, stage) => (stage === "status" ? cell.status : cell.words[stage]);

  function passing() {
    const wanted = [...form.querySelectorAll("select")].filter((one) => one.value);
    return (name) => wanted.every((one) => word(data.cells[name], one.dataset.stage) === one.value);
  }

  const FIRST = 25;
  let every = false;

  function filter() {
    plot();
    shown();
  }

  function shown() {
    const passes = passing();
    const left = rows.filter((row) => passes(row.dataset.name));
    for (const row of rows) row.hidden = true;
    for (const row of every ? left : left.slice(0, FIRST)) row.hidden = false;
    find("#count").textContent = `${every ? left.length : Math.min(FIRST, left.length)} of ${rows.length} shown`;
    find("#more").hidden = every || left.length <= FIRST;
    find("#more").textContent = `Show all ${left.length} rows`;
    find("#none").hidden = left.length > 0;
  }
  find("#more").addEventListener("click", () => { every = true; shown(); });
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());

  // sorting

  const number = (name, key) => { const found = data.cells[name].figures[key]; return found ? Number(found[0]) : NaN; };

  function sort(head) {
    const key = head.dataset.key, words = key === "title";
    const first = head.dataset.higher === "yes" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const one of head.parentElement.children) one.setAttribute("aria-sort", one === head ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      if (words) return sign * data.cells[a][key].localeCompare(data.cells[b][key]);
      const [x, y] = [number(a, key), number(b, key)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return x === y ? 0 : sign * (x < y ? -1 : 1);
    };
    rows.sort((a, b) => compare(a.dataset.name, b.dataset.name));
    find("#table tbody").append(...rows);
    sorted = true;
    shown();
  }

  let sorted = false;

  // until a heading is pressed: the front, then what was measured by the axis across, then the rest
  function frontFirst(best) {
    const place = new Map(best.map((one, at) => [one.name, at]));
    for (const row of rows) row.classList.toggle("best", place.has(row.dataset.name));
    if (sorted) return;
    const worth = (row) => { const found = number(row.dataset.name, across.value); return Number.isNaN(found) ? -Infinity : data.columns[across.value].higher ? found : -found; };
    rows.sort((a, b) => place.has(b.dataset.name) - place.has(a.dataset.name) || worth(b) - worth(a) || 0);
    find("#table tbody").append(...rows);
  }

  for (const head of document.querySelectorAll("#table th[data-key]")) head.querySelector("button").addEventListener("click", () => sort(head));

  // the plot

  const SHAPES = [
    "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0", "M-5.5-5.5h11v11h-11z", "M0-7L7 5.5H-7z", "M0-7.5L7.5 0L0 7.5L-7.5 0z",
    "M0 7L7-5.5H-7z", "M-2-7h4v5h5v4h-5v5h-4v-5h-5v-4h5z", "M-6-3L0-7L6-3V3L0 7L-6 3z", "M-7-3h14v6h-14z",
  ];
  const by = find("#by"), across = find("#x"), up = find("#y");
  const speed = ["speedup", "seconds", "weights", "memory", "macs"];
  const option = ([key, one]) => make("option", { value: key, textContent: one.label });
  const columns = Object.entries(data.columns);
  across.append(...columns.filter(([key]) => speed.includes(key)).map(option));
  up.append(...columns.filter(([key]) => !speed.includes(key)).map(option));
  if ([...by.options].some((one) => one.value === "cache")) by.value = "cache";
  for (const one of [by, across, up]) one.addEventListener("input", plot);

  function ticks(low, high, wanted) {
    const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const out = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9) + 1e-12; at++) out.push([at * step, (at * step).toFixed(digits)]);
    return out;
  }

  function scale(values, from, to, wanted) {
    const finite = values.filter(Number.isFinite);
    let low = finite.length ? Math.min(...finite) : 0, high = finite.length ? Math.max(...finite) : 1;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    low = low >= 0 ? Math.max(0, low - room) : low - room;
    high += room;
    return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks: ticks(low, high, wanted) };
  }

  function paretoFront(points) {
    const [x, y] = [data.columns[across.value], data.columns[up.value]];
    const gain = (axis, a, b) => (a === b ? 0 : a > b === axis.higher ? 1 : -1);
    const better = (a, b) => Math.min(gain(x, a.x, b.x), gain(y, a.y, b.y)) >= 0 && (a.x !== b.x || a.y !== b.y);
    return points.filter((one) => !points.some((other) => better(other, one))).sort((a, b) => a.x - b.x || a.y - b.y);
  }

  function plot() {
    const passes = passing();
    const points = Object.keys(data.cells).filter(passes)
      .map((name) => ({ name, x: number(name, across.value), y: number(name, up.value) }))
      .filter((one) => Number.isFinite(one.x) && !Number.isNaN(one.y));
    const best = paretoFront(points);
    const wide = Math.max(300, Math.round(find("#plot").clientWidth)), high = Math.round(Math.min(480, Math.max(300, wide * 0.5)));
    const box = { left: 58, right: wide - 14, top: 34, bottom: high - 50 };
    const exact = points.some((one) => one.y === Infinity);
    const x = scale(points.map((one) => one.x), box.left, box.right, wide / 90);
    const y = scale(points.map((one) => one.y), box.bottom, exact ? box.top + 26 : box.top, 6);
    const place = (one) => [x.at(one.x), one.y === Infinity ? box.top + 6 : y.at(one.y)];
    const svg = draw("svg", { viewBox: `0 0 ${wide} ${high}`, role: "group", "aria-label": `${points.length} combinations as points; arrow keys go from one to the next` });
    svg.append(...axes(x, y, box, exact, wide < 520), ...whiskers(points, best, x, y, place), line(best.map(place)), ...marks(points, best, place));
    find("#plot").replaceChildren(svg);
    const without = rows.filter((row) => passes(row.dataset.name)).length - points.length;
    const direction = `Better is ${data.columns[up.value].higher ? "up" : "down"} and to the ${data.columns[across.value].higher ? "right" : "left"}.`;
    find("#plot-note").textContent = direction + (without ? ` ${without} of those shown have no such figures and are in the table alone.` : "") + " Bars are 95 % intervals.";
    front(best);
    frontFirst(best);
  }

  function axes(x, y, box, exact, narrow) {
    const label = (key) => data.columns[key].label + (narrow ? "" : `, ${data.columns[key].higher ? "higher" : "lower"} is better`);
    const out = [
      draw("text", { class: "axis", x: 4, y: 16 }, "↑ " + label(up.value)),
      draw("text", { class: "axis", x: box.right, y: box.bottom + 42, "text-anchor": "end" }, label(across.value) + " →"),
    ];
    for (const [value, text] of x.ticks) {
      out.push(draw("line", { class: "grid", x1: x.at(value), x2: x.at(value), y1: box.top, y2: box.bottom }));
      out.push(draw("text", { x: x.at(value), y: box.bottom + 18, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of y.ticks) {
      if (exact && y.at(value) < box.top + 22) continue;
      out.push(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y.at(value), y2: y.at(value) }));
      out.push(draw("text", { x: box.left - 8, y: y.at(value) + 4, "text-anchor": "end" }, text));
    }
    if (exact) {
      out.push(draw("line", { class: "exact", x1: box.left, x2: box.right, y1: box.top + 6, y2: box.top + 6 }));
      out.push(draw("text", { x: box.left - 8, y: box.top + 10, "text-anchor": "end" }, "exact"));
    }
    return out;
  }

  // 95 % intervals, along both axes
  function whiskers(points, best, x, y, place) {
    const out = [];
    for (const one of points) {
      const [px, py] = place(one), figures = data.cells[one.name].figures, own = best.includes(one) ? "whisker best" : "whisker";
      const ends = (axis, scaled) => [figures[axis.value][3], figures[axis.value][4]].filter(Boolean).map(Number).filter(Number.isFinite).map(scaled.at);
      const [left, right] = ends(across, x), [low, high] = ends(up, y);
      if (right !== undefined) out.push(draw("line", { class: own, x1: left, x2: right, y1: py, y2: py }));
      if (high !== undefined && Number.isFinite(one.y)) out.push(draw("line", { class: own, x1: px, x2: px, y1: low, y2: high }));
    }
    return out;
  }

  function line(places) {
    return draw("path", { class: "front", d: places.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") });
  }

  function marks(points, best, place) {
    const words = [...new Set(Object.values(data.cells).map((cell) => word(cell, by.value)))];
    find("#legend").replaceChildren(...words.map((one, at) => {
      const mark = draw("path", { class: `mark k${at % 8}`, d: SHAPES[at % 8] });
      return make("li", {}, draw("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, mark), one);
    }));
    const made = [...points].sort((a, b) => a.x - b.x || a.y - b.y).map((one, at) => {
      const cell = data.cells[one.name], kind = words.indexOf(word(cell, by.value)) % 8;
      const told = [across, up].map((axis) => `${data.columns[axis.value].label} ${cell.figures[axis.value][1]}`).join(", ");
      const [x, y] = place(one);
      const point = draw("g", { class: best.includes(one) ? "point best" : "point", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
        role: "button", tabindex: at ? -1 : 0, "aria-label": `${cell.title}: ${told}`, "data-open": one.name },
        draw("circle", { r: 11, fill: "transparent" }), draw("path", { class: `mark k${kind}`, d: SHAPES[kind] }));
      for (const event of ["mouseenter", "focus"]) point.addEventListener(event, () => tip(point));
      for (const event of ["mouseleave", "blur"]) point.addEventListener(event, () => { find("#tip").hidden = true; });
      return point;
    });
    made.forEach((point, at) => point.addEventListener("keydown", (event) => walk(event, made, at)));
    return made;
  }

  function walk(event, points, at) {
    const moves = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: points.length - 1 };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(points[at].dataset.open);
    } else if (event.key in moves) {
      event.preventDefault();
      const next = points[Math.min(points.length - 1, Math.max(0, moves[event.key]))];
      points[at].setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    }
  }

  function tip(point) {
    const box = point.getBoundingClientRect(), shown = find("#tip");
    shown.textContent = point.getAttribute("aria-label");
    shown.hidden = false;
    shown.style.left = Math.max(4, Math.min(box.right + 6, innerWidth - shown.offsetWidth - 4)) + "px";
    shown.style.top = Math.max(4, box.top - shown.offsetHeight - 4) + "px";
  }

  function front(best) {
    find("#front-count").textContent = best.length;
    find("#front").replaceChildren(...best.map((one) => {
      const cell = data.cells[one.name];
      const link = make("button", { type: "button", className: "link", textContent: cell.title });
      link.dataset.open = one.name;
      const told = [across, up].map((axis) => `${cell.figures[axis.value][1]} ${Number.isFinite(number(one.name, axis.value)) ? data.columns[axis.value].unit : ""}`.trim());
      return make("li", {}, link, " " + told.join(", "));
    }));
  }

  filter();
  let width = find("#plot").clientWidth;
  addEventListener("resize", () => {
    if (find("#plot").clientWidth === width) return;
    width = find("#plot").clientWidth;
    plot();
  });
  if (location.hash) open(decodeURIComponent(location.hash.slice(1)));
})();
