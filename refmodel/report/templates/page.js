"use strict";
// Glue of a report: figures under a pointer or the arrow keys, search and filter, lines that open. The numbers are in the page.

const tip = document.getElementById("tip");
const shown = (x) => (x === null ? "none" : x === 0 ? "0" : Math.abs(x) >= 0.01 && Math.abs(x) < 1e4 ? String(x) : x.toExponential(2));

function reader(area) {
  const data = JSON.parse(document.getElementById(area.dataset.of + "-f").textContent);
  const marks = JSON.parse(area.dataset.marks);
  const cursor = area.firstElementChild;
  const columns = data.at.length;
  const rows = data.kind === "heat" ? data.rows.length : 1;
  let current = 0;
  area.classList.add(data.kind);
  area.setAttribute("aria-valuemax", Math.max(0, columns * rows - 1));

  function words(i) {
    const at = i % columns;
    if (data.kind === "heat") {
      const row = Math.floor(i / columns);
      return `${data.rows[row]}, ${data.at[at]}\n${data.name} ${shown(data.values[row][at])}`;
    }
    return [data.at[at], ...data.series.map((one) => `${one.name} ${shown(one.values[at])}`)].join("\n");
  }

  function place(i) {
    const at = i % columns;
    const row = Math.floor(i / columns);
    if (data.kind === "points") return [marks[at][0], marks[at][1]];
    if (data.kind === "heat") return [(100 * at) / columns, 100 - (100 * (row + 1)) / rows];
    return [(100 * (at + 0.5)) / columns, 0];
  }

  function show(i) {
    if (!columns) return;
    current = i;
    const [left, top] = place(i);
    cursor.hidden = false;
    cursor.style.left = `${left}%`;
    if (data.kind !== "lines") cursor.style.top = `${top}%`;
    if (data.kind === "heat") Object.assign(cursor.style, { width: `${100 / columns}%`, height: `${100 / rows}%` });
    const text = words(i);
    area.setAttribute("aria-valuenow", i);
    area.setAttribute("aria-valuetext", text.replaceAll("\n", ", "));
    tip.textContent = text;
    tip.hidden = false;
    const box = area.getBoundingClientRect();
    const x = box.left + (box.width * left) / 100;
    const y = box.top + (box.height * top) / 100;
    const right = window.innerWidth - tip.offsetWidth - 6;
    tip.style.left = `${Math.max(6, Math.min(x + 14, right))}px`;
    tip.style.top = `${Math.max(6, Math.min(y + 10, window.innerHeight - tip.offsetHeight - 6))}px`;
  }

  function under(event) {
    const box = area.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    if (data.kind === "points") {
      const far = marks.map(([a, b]) => ((a / 100 - x) * box.width) ** 2 + ((b / 100 - y) * box.height) ** 2);
      return far.indexOf(Math.min(...far));
    }
    const inside = (part, count) => Math.max(0, Math.min(count - 1, Math.floor(part * count)));
    return inside(x, columns) + columns * (data.kind === "heat" ? inside(1 - y, rows) : 0);
  }

  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: columns, ArrowDown: -columns, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
  const hide = () => { cursor.hidden = true; tip.hidden = true; };
  area.addEventListener("pointermove", (event) => show(under(event)));
  area.addEventListener("pointerdown", (event) => show(under(event)));
  area.addEventListener("pointerleave", hide);
  area.addEventListener("blur", hide);
  area.addEventListener("focus", () => { if (area.matches(":focus-visible")) show(current); });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const step = rows === 1 && Math.abs(steps[event.key]) === columns ? Math.sign(steps[event.key]) : steps[event.key];
    show(Math.max(0, Math.min(columns * rows - 1, current + step)));
  });
}

function finder(form) {
  const bodies = [...document.getElementById(form.dataset.of).tBodies];
  const [search, choice, count] = ["input", "select", "output"].map((name) => form.querySelector(name));
  const texts = bodies.map((body) => body.textContent.toLowerCase());
  function find() {
    const wanted = search.value.trim().toLowerCase();
    let found = 0;
    bodies.forEach((body, i) => {
      body.hidden = !(texts[i].includes(wanted) && (!choice.value || body.dataset.word === choice.value));
      found += !body.hidden;
      const inner = body.querySelector(".inner tbody");
      for (const row of inner ? inner.rows : []) {
        const itself = body.rows[0].textContent.toLowerCase().includes(wanted);
        row.hidden = !itself && !row.textContent.toLowerCase().includes(wanted);
      }
    });
    count.textContent = found === bodies.length ? `${found} lines` : `${found} of ${bodies.length} lines`;
  }
  search.addEventListener("input", find);
  choice.addEventListener("change", find);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(find));
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest(".opener");
  if (!opener) return;
  const inner = document.getElementById(opener.getAttribute("aria-controls"));
  inner.hidden = !inner.hidden;
  opener.setAttribute("aria-expanded", String(!inner.hidden));
});
document.querySelectorAll(".reader").forEach(reader);
document.querySelectorAll(".finder").forEach(finder);
