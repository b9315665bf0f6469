// Sorting, filtering and charts of one report page. Nothing here is needed to read the tables.
const json = (id) => JSON.parse(document.getElementById(id).textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = json("data");
const specs = json("charts");
const views = new Map();
const state = {};
const AXIS_PX = 72;
const KIND_PX = 40; // more, beside panels that name kinds of incidents

document.documentElement.classList.add("js");

// ---- tables: a click on a heading sorts, a second one turns it round; unknown values stay last
function sort(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentNode.children].indexOf(heading);
  const falling = heading.getAttribute("aria-sort") === "ascending";
  const key = (row) => {
    const cell = row.children[column];
    return cell.dataset.sort ?? (heading.classList.contains("number") ? "" : cell.textContent.trim());
  };
  const numeric = heading.classList.contains("number");
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const by = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
    return falling ? -by : by;
  };
  all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
}
all("th button").forEach((button) => button.addEventListener("click", () => sort(button.closest("th"))));

// ---- choices: one scenario, one service, any controllers; tables and charts follow
function pressed(group) {
  return all("[aria-pressed=true]", group).map((button) => button.value);
}
function read() {
  all("[data-choice]").forEach((group) => { state[group.dataset.choice] = pressed(group)[0]; });
  const chips = document.querySelector("[data-chips]");
  if (chips) state.shown = pressed(chips);
}
function apply() {
  all("[data-scenario], [data-controller]").forEach((row) => {
    const { scenario, controller } = row.dataset;
    const elsewhere = state.scenario !== undefined && scenario !== undefined && scenario !== state.scenario;
    const unseen = state.shown !== undefined && controller !== undefined && !state.shown.includes(controller);
    row.hidden = elsewhere || unseen;
  });
  all("[data-show=scenario]").forEach((place) => { place.textContent = state.scenario ?? place.textContent; });
  const kept = specs.timeline?.usermeta.scenarios;
  const empty = document.querySelector(".empty");
  if (empty) empty.hidden = !state.scenario || kept.includes(state.scenario);
  const view = views.get("timeline");
  if (!view) return;
  Object.entries(state).forEach(([name, value]) => view.signal(name, value));
  view.runAsync();
}
all("[data-choice] button").forEach((button) => button.addEventListener("click", () => {
  all("button", button.parentNode).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  read();
  apply();
}));
all("[data-chips] button").forEach((button) => button.addEventListener("click", () => {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  read();
  apply();
}));

// ---- charts: the data stand once in the page, as columns; a chart takes what it names
function rows(columns) {
  const names = Object.keys(columns);
  return (columns[names[0]] ?? []).map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}
async function draw(name) {
  const place = document.getElementById(`chart-${name}`);
  const spec = structuredClone(specs[name]);
  const named = (spec.vconcat ?? []).some((panel) => panel.name === "incidents");
  const width = Math.max(place.clientWidth - AXIS_PX - (named ? KIND_PX : 0), 240);
  (spec.vconcat ?? [spec]).forEach((panel) => { panel.width = width; });
  spec.datasets = Object.fromEntries(spec.usermeta.datasets.map((set) => [set, rows(data[set])]));
  (spec.params ?? []).forEach((param) => { if (param.name in state) param.value = state[param.name]; });
  const embedded = await window.vegaEmbed(place, spec, {
    ast: true, // no code is made from text, so the page's content policy can forbid that
    renderer: "svg",
    logLevel: 1, // errors only: a scenario without failures is no cause for a warning
    actions: { export: true, source: false, compiled: false, editor: false },
    tooltip: { disableDefaultStyle: true },
  });
  views.get(name)?.finalize();
  views.set(name, embedded.view);
}
async function drawAll() {
  for (const name of Object.keys(specs)) await draw(name);
}
let width = document.body.clientWidth;
let waiting;
window.addEventListener("resize", () => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 200);
});
window.addEventListener("beforeprint", () => all("details").forEach((details) => { details.open = true; }));

read();
apply();
await drawAll();
apply();
document.documentElement.dataset.drawn = String(views.size);
