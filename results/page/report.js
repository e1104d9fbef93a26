"use strict";
// Tables: a click or the Enter key on a column's name sorts by it, again the other way round; empty cells stay last.
for (const box of document.querySelectorAll("[data-table]")) {
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...box.querySelectorAll("thead th")];
  const compare = new Intl.Collator("en", { numeric: true }).compare;

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    const numeric = head.classList.contains("number");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (numeric ? Number(a) - Number(b) : compare(a, b));
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });

  // Whether it scrolls is known once it is shown: in a closed section nothing has a width.
  const scroll = box.querySelector(".scroll");
  new ResizeObserver(() => {
    box.querySelector(".hint").hidden = scroll.scrollWidth <= scroll.clientWidth;
  }).observe(scroll);

  const form = box.querySelector("form");
  if (!form) continue;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = [...form.querySelectorAll("select")].filter((select) => select.value);
    let count = 0;
    for (const row of rows) {
      const good = words.every((word) => texts.get(row).includes(word))
        && wanted.every((select) => row.cells[select.dataset.column].textContent === select.value);
      row.hidden = !good;
      count += good;
    }
    form.querySelector("output").textContent = `${count} of ${rows.length} lines`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  if ([...form.elements].some((field) => field.value)) show(); // a browser that goes back fills in what was there
}

// Curves of a run, drawn when its section is opened.
const curves = JSON.parse(document.getElementById("curves").textContent);
const svgNode = (name, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const short = (value, digits = 4) => {
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(digits)));
};

function drawCurve(title, epochs, values) {
  const points = epochs.map((x, i) => [x, values[i]]).filter(([x, y]) => x !== null && y !== null);
  if (!points.length) return null;
  const [width, height, left, right, top, bottom] = [280, 150, 48, 10, 24, 22];
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const toX = (x) => left + (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5) * (width - left - right);
  const toY = (y) => height - bottom - (y1 > y0 ? (y - y0) / (y1 - y0) : 0.5) * (height - top - bottom);
  const last = ys[ys.length - 1];
  const label = `${title}: ${short(ys[0])} at epoch ${short(xs[0])}, ${short(last)} at epoch ${short(xs[xs.length - 1])}`;
  const svg = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  svg.append(svgNode("title", {}, label));
  svg.append(svgNode("text", { x: left, y: 15, class: "title" }, `${title}   ${short(last)}`));
  svg.append(svgNode("text", { x: left - 5, y: toY(y1) + 4, "text-anchor": "end" }, short(y1, 3)));
  if (y1 > y0) svg.append(svgNode("text", { x: left - 5, y: toY(y0) + 4, "text-anchor": "end" }, short(y0, 3)));
  svg.append(svgNode("text", { x: toX(x0), y: height - 6 }, short(x0)));
  if (x1 > x0) svg.append(svgNode("text", { x: toX(x1), y: height - 6, "text-anchor": "end" }, `epoch ${short(x1)}`));
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("");
  svg.append(svgNode("path", { d: path }));
  if (points.length <= 20) for (const [x, y] of points) svg.append(svgNode("circle", { cx: toX(x), cy: toY(y), r: 2.4 }));
  return svg;
}

function drawRun(details) {
  const box = details.querySelector("[data-curves]");
  if (!box || box.dataset.drawn) return;
  box.dataset.drawn = "yes";
  box.textContent = "";
  for (const [split, columns] of Object.entries(curves[Number(box.dataset.curves)].splits)) {
    for (const [name, values] of Object.entries(columns)) {
      const svg = name === "epoch" ? null : drawCurve(`${split} ${name}`, columns.epoch, values);
      if (!svg) continue;
      const figure = document.createElement("figure");
      figure.append(svg);
      box.append(figure);
    }
  }
}

for (const details of document.querySelectorAll("details.run")) {
  details.addEventListener("toggle", () => details.open && drawRun(details));
}

// A link to a run opens its section.
const openTarget = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || target.tagName !== "DETAILS") return;
  target.open = true;
  drawRun(target);
  target.scrollIntoView();
};
addEventListener("hashchange", openTarget);
openTarget();
