// Wyloop's pages: charts, crystals that turn, live updates, pause and resume. Without it every page still reads.
"use strict";
const script = document.currentScript;
const loaded = {};
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
function say(text) { const place = document.getElementById("live"); if (place) place.textContent = text; }
function remembered(key, value) {
  try { if (value === undefined) return localStorage.getItem(key); localStorage.setItem(key, value); } catch { return null; }
  return value;
}
function load(address) {
  loaded[address] ??= new Promise((done, failed) => {
    const tag = document.createElement("script");
    tag.src = address; tag.onload = done; tag.onerror = () => failed(new Error("could not load " + address));
    document.head.append(tag);
  });
  return loaded[address];
}
async function read(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail || answer.statusText);
  return told;
}

// Light and dark
const THEMES = ["", "light", "dark"];
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  const button = document.getElementById("theme");
  if (button) button.title = theme || "automatic";
}
setTheme(remembered("wyloop-theme") || "");
document.getElementById("theme")?.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(remembered("wyloop-theme") || "") + 1) % THEMES.length];
  remembered("wyloop-theme", next); setTheme(next); redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
function redraw() {
  document.querySelectorAll("[data-chart].drawn").forEach((place) => Plotly.relayout(place, themed({})));
  document.querySelectorAll("[data-structure]").forEach((place) => place.draw?.());
}

// Charts
function themed(layout) {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  const made = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 13 }, hoverlabel: { namelength: -1 } };
  if (layout.ternary) {
    made.ternary = { ...layout.ternary, bgcolor: "rgba(0,0,0,0)" };
    for (const name of ["aaxis", "baxis", "caxis"]) made.ternary[name] = { ...layout.ternary[name], gridcolor: colour("--line") };
  }
  for (const name of ["xaxis", "yaxis", "xaxis2"]) if (layout[name]) made[name] = { ...axis, ...layout[name] };
  if (!Object.keys(layout).length) return { "font.color": colour("--ink"), "xaxis.gridcolor": colour("--line"), "yaxis.gridcolor": colour("--line") };
  return made;
}
async function drawChart(place) {
  place.classList.add("asked");
  try {
    const [told] = await Promise.all([read(place.dataset.chart), load(script.dataset.plotly)]);
    if (!told.data.some((trace) => (trace.x || trace.a || []).length)) {
      if (place.classList.contains("drawn")) Plotly.purge(place);
      place.classList.remove("drawn"); place.innerHTML = '<p class="empty">nothing to show yet</p>'; return;
    }
    if (!place.classList.contains("drawn")) place.replaceChildren();
    await Plotly.react(place, told.data, themed(told.layout), { responsive: true, displaylogo: false, displayModeBar: false });
    if (!place.classList.contains("drawn")) {
      place.classList.add("drawn");
      place.on("plotly_click", (event) => { const link = event.points[0].customdata; if (typeof link === "string" && link.startsWith("/")) location.href = link; });
    }
  } catch (error) {
    const text = document.createElement("p"); text.className = "empty"; text.textContent = error.message;
    place.replaceChildren(text);
  }
}

// Crystals
async function showCrystal(place) {
  const box = place.closest("figure");
  let told, viewer;
  async function fetchAtoms(cells) {
    told = await read(place.dataset.structure + "?cells=" + cells);
    const cif = box.querySelector("[data-cif]");
    if (cif) cif.href = URL.createObjectURL(new Blob([told.cif], { type: "chemical/x-cif" }));
    const kinds = new Map(told.atoms.map((atom) => [atom.element, atom.colour]));
    box.querySelector(".legend").replaceChildren(...[...kinds].map(([name, shade]) => {
      const item = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = shade; item.append(dot, name); return item;
    }));
  }
  place.draw = () => told && (script.dataset.viewer ? drawAtoms() : drawWithPlotly());
  function drawAtoms() {
    viewer ??= $3Dmol.createViewer(place, { backgroundColor: colour("--paper"), antialias: true });
    viewer.setBackgroundColor(colour("--paper"));
    viewer.removeAllModels(); viewer.removeAllShapes();
    const model = viewer.addModel();
    const bonded = told.atoms.map(() => []);
    told.bonds.forEach(([one, other]) => { bonded[one].push(other); bonded[other].push(one); });
    model.addAtoms(told.atoms.map((atom, index) => ({ elem: atom.element, x: atom.xyz[0], y: atom.xyz[1], z: atom.xyz[2],
      serial: index, index, bonds: bonded[index], bondOrder: bonded[index].map(() => 1), properties: { colour: atom.colour, radius: atom.radius } })));
    model.setStyle({}, { stick: { radius: 0.1, colorfunc: (atom) => atom.properties.colour }, sphere: { scale: 0.28, colorfunc: (atom) => atom.properties.colour } });
    told.edges.forEach(([a, b]) => viewer.addLine({ start: { x: a[0], y: a[1], z: a[2] }, end: { x: b[0], y: b[1], z: b[2] }, color: colour("--soft"), linewidth: 2 }));
    model.setHoverable({}, true, (atom) => say(atom.elem + " at " + [atom.x, atom.y, atom.z].map((v) => v.toFixed(2)).join(", ") + " Å"), () => say(""));
    viewer.zoomTo(); if (!place.dataset.drawn) { viewer.rotate(20, "y"); viewer.rotate(-15, "x"); } viewer.render();
    place.dataset.drawn = "3Dmol";
  }
  async function drawWithPlotly() {
    await load(script.dataset.plotly);
    const lines = { x: [], y: [], z: [] };
    const join = (target, a, b) => { for (const [axis, at] of [["x", 0], ["y", 1], ["z", 2]]) target[axis].push(a[at], b[at], null); };
    told.edges.forEach(([a, b]) => join(lines, a, b));
    const bonds = { x: [], y: [], z: [] };
    told.bonds.forEach(([one, other]) => join(bonds, told.atoms[one].xyz, told.atoms[other].xyz));
    const pick = (at) => told.atoms.map((atom) => atom.xyz[at]);
    const hidden = { visible: false };
    const spans = [0, 1, 2].map((at) => { const all = [...pick(at), ...told.edges.flat().map((end) => end[at])]; return Math.max(...all) - Math.min(...all) || 1; });
    const shares = spans.map((span) => 1.4 * span / Math.max(...spans)); // all of a long cell is in sight
    await Plotly.react(place, [
      { type: "scatter3d", mode: "lines", ...bonds, line: { color: colour("--soft"), width: 5 }, hoverinfo: "skip" },
      { type: "scatter3d", mode: "lines", ...lines, line: { color: colour("--soft"), width: 2 }, hoverinfo: "skip" },
      { type: "scatter3d", mode: "markers", x: pick(0), y: pick(1), z: pick(2), text: told.atoms.map((atom) => atom.element), hovertemplate: "%{text}<extra></extra>",
        marker: { size: told.atoms.map((atom) => 8 + 9 * atom.radius), color: told.atoms.map((atom) => atom.colour), opacity: 1, line: { width: 1, color: "#333" } } },
    ], { ...themed({ title: "" }), showlegend: false, margin: { l: 0, r: 0, t: 0, b: 0 }, scene: { aspectmode: "manual", aspectratio: { x: shares[0], y: shares[1], z: shares[2] }, camera: { projection: { type: "orthographic" } }, xaxis: hidden, yaxis: hidden, zaxis: hidden } }, { responsive: true, displaylogo: false, displayModeBar: false });
    place.dataset.drawn = "plotly";
  }
  place.addEventListener("keydown", (event) => {
    if (!viewer) return;
    const turn = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] }[event.key];
    if (turn) viewer.rotate(...turn); else if (event.key === "+") viewer.zoom(1.15); else if (event.key === "-") viewer.zoom(0.87); else return;
    event.preventDefault(); viewer.render();
  });
  box.addEventListener("click", async (event) => {
    const cells = event.target.dataset?.cells;
    if (cells) {
      box.querySelectorAll("[data-cells]").forEach((one) => one.setAttribute("aria-pressed", String(one === event.target)));
      await fetchAtoms(cells); place.draw();
    } else if (event.target.dataset?.view === "reset") { delete place.dataset.drawn; viewer?.setView([0, 0, 0, 0, 0, 0, 0, 1]); place.draw(); }
  });
  try {
    await Promise.all([fetchAtoms(1), script.dataset.viewer ? load(script.dataset.viewer) : null]);
    await place.draw();
  } catch (error) { place.textContent = error.message; }
}

// What is in sight is drawn
const sight = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (!entry.isIntersecting) return;
  sight.unobserve(entry.target);
  if (entry.target.dataset.chart) drawChart(entry.target); else showCrystal(entry.target);
}), { rootMargin: "300px" });
function watchFigures(root) { root.querySelectorAll("[data-chart], [data-structure]").forEach((place) => sight.observe(place)); }

// Pause, resume, stop: with a token, kept as long as the tab
function askToken(message) {
  return new Promise((done) => {
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "token-title");
    dialog.innerHTML = '<form method="dialog"><h2 id="token-title">Token</h2><p class="quiet"></p><label>Token of this server <input type="password" autocomplete="off" required></label><div class="buttons"><button value="ok" class="primary">Go on</button><button value="cancel" formnovalidate>Cancel</button></div></form>';
    dialog.querySelector("p").textContent = message;
    dialog.addEventListener("close", () => { const token = dialog.querySelector("input").value; dialog.remove(); done(dialog.returnValue === "ok" ? token : null); });
    document.body.append(dialog); dialog.showModal();
  });
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-action]");
  if (!button) return;
  const box = button.closest("[data-campaign]"), shown = box.querySelector("output");
  if (button.dataset.action === "stop" && !confirm("Stop this campaign for good?")) return;
  let token = null;
  try { token = sessionStorage.getItem("wyloop-token"); } catch { /* no storage */ }
  token ||= await askToken("It is the one set as WYLOOP_PLATFORM_API_TOKEN where the server runs; it is kept until this tab is closed.");
  if (!token) return;
  const answer = await fetch(`/api/campaigns/${encodeURIComponent(box.dataset.campaign)}/${button.dataset.action}`, { method: "POST", headers: { Authorization: "Bearer " + token } }).catch((error) => ({ ok: false, json: async () => ({ detail: error.message }) }));
  try { if (answer.ok) sessionStorage.setItem("wyloop-token", token); else sessionStorage.removeItem("wyloop-token"); } catch { /* no storage */ }
  const told = await answer.json().catch(() => ({}));
  shown.textContent = answer.ok ? "done" : told.detail || "refused";
  if (answer.ok) refresh(["campaigns"]);
});

// Live updates: parts of the page that the change concerns are fetched again
let waiting = null, settling = null, pending = new Set();
async function refresh(names, isLast = false) {
  names.forEach((name) => pending.add(name));
  if (waiting || document.hidden) return;
  clearTimeout(settling); // counts are a few seconds old at most: once all is quiet, a last look
  if (!isLast) settling = setTimeout(() => refresh(names, true), 6000);
  waiting = setTimeout(async () => {
    const changed = pending; pending = new Set(); waiting = null;
    const parts = [...document.querySelectorAll("[data-live]")].filter((part) => part.dataset.live.split(" ").some((name) => changed.has(name)));
    if (!parts.length) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const other = fresh.getElementById(part.id);
        const active = part.contains(document.activeElement) ? document.activeElement : null;
        if (!other || active?.matches("input, select, textarea")) continue; // somebody is writing there
        const open = [...part.querySelectorAll("details")].map((one) => one.open);
        const before = part.dataset.was ?? part.innerHTML;
        part.dataset.was = other.innerHTML;
        if (before === other.innerHTML) continue;
        part.innerHTML = other.innerHTML;
        part.querySelectorAll("details").forEach((one, at) => { if (open[at]) one.open = true; });
        if (active) (part.querySelector("button, a, summary") || part).focus?.({ preventScroll: true });
        part.classList.remove("changed"); void part.offsetWidth; part.classList.add("changed");
      }
      if (changed.has("rounds") || changed.has("materials")) document.querySelectorAll("[data-chart].asked").forEach(drawChart);
      say("updated " + new Date().toLocaleTimeString());
    } catch { /* the server is gone; the stream says so */ }
  }, 700);
}
if (document.querySelector("[data-live]") && window.EventSource) {
  const stream = new EventSource("/api/events");
  stream.addEventListener("change", (event) => refresh(Object.keys(JSON.parse(event.data))));
  stream.onopen = () => say("live");
  stream.onerror = () => say("not live, trying again");
  document.addEventListener("visibilitychange", () => { if (!document.hidden && pending.size) refresh([]); });
  addEventListener("pagehide", () => stream.close());
}
watchFigures(document);
