// Curves of several runs over each other, to point at: uPlot draws, two choices say what.
(() => {
  const box = document.getElementById("overlay");
  if (!box) return;
  const form = document.getElementById("overlay-choice");
  const { experiment, curve } = form.elements;
  const dashes = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
  const most = 24; // runs: more lines are not told apart
  let chart = null;

  const option = (text) => new Option(text, text);
  const members = () => curves.filter((run) => run.experiment === experiment.value).slice(0, most);
  const names = (run) => Object.entries(run.splits).flatMap(([split, columns]) =>
    Object.keys(columns).filter((name) => name !== "epoch" && isCurve(columns, name)).map((name) => `${split} ${name}`));
  // A dot is no curve.
  const isCurve = (columns, name) => columns[name].filter((y, i) => y != null && columns.epoch[i] != null).length > 1;
  // Of "val top1" and a headline called top1_best_last10 the one belongs to the other.
  const isMain = (name, run) => {
    const [split, metric] = [name.slice(0, name.indexOf(" ")), name.slice(name.indexOf(" ") + 1)];
    return run.main === metric || (split === "val" && run.main.startsWith(`${metric}_`));
  };
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function points(run) {
    const split = curve.value.slice(0, curve.value.indexOf(" "));
    const columns = run.splits[split] ?? { epoch: [] };
    const values = columns[curve.value.slice(split.length + 1)] ?? [];
    const known = columns.epoch.map((x, i) => [x, values[i]]).filter(([x, y]) => x != null && y != null);
    return [known.map(([x]) => x), known.map(([, y]) => y)];
  }

  function draw() {
    chart?.destroy();
    box.textContent = "";
    const drawn = members().map((run) => [run, points(run)]).filter(([, [xs]]) => xs.length > 1);
    if (!drawn.length) return;
    const used = new Map();
    const series = drawn.map(([run, [xs]]) => {
      const before = used.get(run.color) ?? 0;
      used.set(run.color, before + 1);
      return {
        label: run.label, stroke: variable(run.color ? `--series-${run.color}` : "--ink"), width: 2,
        dash: dashes[before % dashes.length], spanGaps: true, points: { show: xs.length < 30, size: 6 },
        value: (_, value) => (value == null ? "" : short(value)),
      };
    });
    const axis = { stroke: variable("--ink"), grid: { stroke: variable("--line"), width: 1 }, ticks: { stroke: variable("--line") } };
    chart = new uPlot({
      width: box.clientWidth, height: Math.min(420, Math.max(260, box.clientWidth * 0.5)),
      scales: { x: { time: false } },
      axes: [{ ...axis, label: "epoch", labelSize: 22 }, { ...axis, size: 62, values: (_, ticks) => ticks.map((t) => short(t)) }],
      cursor: { focus: { prox: 24 } }, focus: { alpha: 0.25 },
      series: [{ label: "epoch", value: (_, value) => (value == null ? "" : short(value)) }, ...series],
    }, uPlot.join(drawn.map(([, data]) => data)), box);
  }

  function fillCurves() {
    const there = [...new Set(members().flatMap(names))];
    const before = curve.value;
    curve.replaceChildren(...there.map(option));
    const run = members()[0];
    curve.value = there.includes(before) ? before : there.find((name) => isMain(name, run)) ?? there[0];
  }

  const experiments = [...new Set(curves.filter((run) => names(run).length).map((run) => run.experiment))];
  if (!experiments.length) return;
  experiment.replaceChildren(...experiments.map(option));
  experiment.value = experiments.find((name) => !name.startsWith("pretrain")) ?? experiments[0];
  form.hidden = false;
  fillCurves();
  experiment.addEventListener("change", () => { curve.value = ""; fillCurves(); draw(); });
  curve.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (chart && box.clientWidth !== width) draw();
    width = box.clientWidth;
  }).observe(box);
  draw();
})();
