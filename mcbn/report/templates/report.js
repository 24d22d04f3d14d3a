"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  show();

  // A link to each section, to copy.
  for (const section of document.querySelectorAll("main section[id]")) {
    const heading = section.querySelector("h2");
    if (!heading || heading.closest("section") !== section) continue;
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = "#";
    copy.setAttribute("aria-label", `Copy a link to ${heading.textContent}`);
    copy.addEventListener("click", () => {
      location.hash = section.id;
      navigator.clipboard?.writeText(location.href).catch(() => {});
    });
    heading.append(copy);
  }

  // The section that is read is marked in the bar, and is scrolled to there.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const bar = document.querySelector("nav div");
  const mark = () => {
    const read = [...links.keys()].filter((id) => document.getElementById(id)?.getBoundingClientRect().top < 120).pop();
    for (const [id, link] of links) {
      if (id !== read) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        bar.scrollTo({ left: link.offsetLeft - bar.clientWidth / 2 });
      }
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  // What is folded is printed as well.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });

  const number = (row, column) => {
    const cell = row.cells[column];
    const value = parseFloat(cell.dataset.value);
    return Number.isNaN(value) ? null : value;
  };
  const compare = (column) => (a, b) => {
    const x = number(a, column);
    const y = number(b, column);
    if (x !== null && y !== null) return x - y;
    return a.cells[column].textContent.localeCompare(b.cells[column].textContent);
  };
  // Rows without a number stay last in either direction.
  const sorted = (rows, column, down) => {
    const numeric = rows.some((row) => number(row, column) !== null);
    const blank = numeric ? rows.filter((row) => number(row, column) === null) : [];
    const filled = rows.filter((row) => !blank.includes(row)).sort(compare(column));
    return [...(down ? filled.reverse() : filled), ...blank];
  };
  for (const heading of document.querySelectorAll("table.sortable thead th")) {
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.append(...heading.childNodes);
    heading.append(sorter);
    sorter.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      const body = heading.closest("table").tBodies[0];
      for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...sorted([...body.rows], heading.cellIndex, down));
    });
  }
})();
