"use strict";
// Sorts and filters the table of layers. The page is complete without it.
(() => {
  document.documentElement.classList.add("scripted");
  const table = document.querySelector("table.sortable");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const find = document.getElementById("find");
  const failing = document.getElementById("only-failing");
  const more = document.getElementById("more");
  const shown = document.getElementById("shown");
  const levels = Array.from(document.querySelectorAll('.controls input[name="level"]'));
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const passed = new Set(["pass", "known", "suppressed", "not_gated"]);

  function filter() {
    const wanted = find.value.trim().toLowerCase().split(/\s+/);
    const kept = new Set(levels.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      const fits =
        kept.has(row.dataset.level) &&
        wanted.every((word) => words.get(row).includes(word)) &&
        !(failing && failing.checked && passed.has(row.dataset.outcome));
      row.hidden = !fits;
      count += fits ? 1 : 0;
    }
    shown.value = count === rows.length ? `${count} layers` : `${count} of ${rows.length} layers`;
  }

  function key(row, index, numeric) {
    const cell = row.cells[index];
    if (!("by" in cell.dataset)) return null;
    return numeric || cell.dataset.by === "" ? Number(cell.dataset.by) : cell.dataset.by;
  }

  function sort(header) {
    const index = header.cellIndex;
    const numeric = rows.every((row) => !("by" in row.cells[index].dataset) ||
      Number.isFinite(Number(row.cells[index].dataset.by)));
    const first = numeric && index > 0 ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const compare = numeric
      ? (a, b) => a - b
      : (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
    const keyed = rows.map((row, place) => [key(row, index, numeric), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return a === b ? i - j : a === null ? 1 : -1;
      return sign * compare(a, b) || i - j;
    });
    body.append(...keyed.map(([, , row]) => row));
  }

  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sort(header));
  }
  for (const box of [...levels, failing]) {
    if (box) box.addEventListener("change", filter);
  }
  find.addEventListener("input", filter);
  more.addEventListener("change", () => table.classList.toggle("full", more.checked));
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  // Paper cannot be unfolded.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    for (const each of folded) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
  });
  // A strip in a figure leads to a row, which a filter may have hidden.
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.hidden) {
      find.value = "";
      for (const box of levels) box.checked = true;
      if (failing) failing.checked = false;
      filter();
      target.scrollIntoView();
    }
  });
})();
