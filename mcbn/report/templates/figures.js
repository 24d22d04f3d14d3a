"use strict";
// Values of points, methods to hide, and figures to save. Without scripts all figures can be read.
(() => {
  const HIDDEN = new Set(["low", "high", "column", "from", "to", "band low", "band high"]);
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, attributes, text = "") => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const button = (text, label, act) => {
    const element = document.createElement("button");
    Object.assign(element, { type: "button", textContent: text, title: label });
    element.addEventListener("click", act);
    return element;
  };

  // Where a value lies: `data-frame` has both ends of each axis on the page and in numbers.
  const scale = (start, end, low, high, log) => {
    const on = (x) => (log ? Math.log(x) : x);
    return (x) => start + ((on(x) - on(low)) / (on(high) - on(low))) * (end - start);
  };
  const pointsOf = (svg, plotted) => {
    const frame = svg.dataset.frame.split(" ").map(Number);
    const [left, right] = frame, [bottom, top] = frame.slice(5);
    const across = scale(...frame.slice(0, 5)), up = scale(...frame.slice(5));
    return plotted.flatMap((series) => {
      const [x, y] = series.place;
      const ys = series.rows ?? series.columns[y] ?? [];
      return ys.map((value, row) => {
        const place = x ? across(series.columns[x][row]) : (left + right) / 2;
        return { series, row, x: place, y: up(value), level: !x && ys.length > 0 };
      });
    }).filter((p) => p.x >= left - 1 && p.x <= right + 1 && p.y >= top - 1 && p.y <= bottom + 1);
  };
  const shown = (value) => (typeof value === "number" ? String(+value.toPrecision(4)).replace("-", "\u2212") : value);
  const inWords = ({ series, row }) => {
    const { low, high } = series.columns;
    const columns = Object.entries(series.columns).filter(([name]) => !HIDDEN.has(name));
    const lines = columns.map(([name, values]) => {
      const ends = name === (series.rows ? series.place[0] : series.place[1]) && low?.[row] != null && high?.[row] != null;
      return `${name} ${shown(values[row])}${ends ? ` [${shown(low[row])}, ${shown(high[row])}]` : ""}`;
    });
    return [series.name, ...lines].join("\n");
  };

  const point = (figure, svg, plotted) => {
    const points = pointsOf(svg, plotted);
    if (!points.length) return;
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    figure.append(tip);
    const ring = make("circle", { r: 5, stroke: "var(--ink)", "stroke-width": 1.5, visibility: "hidden" });
    ring.dataset.own = "";
    svg.append(ring);
    let at = -1;
    const visible = (p) => !svg.querySelector(`g[data-series="${p.series.style}"][display]`);
    const show = (index) => {
      at = index;
      const chosen = points[index];
      ring.setAttribute("visibility", chosen && !chosen.level ? "visible" : "hidden");
      tip.textContent = chosen ? inWords(chosen) : "";
      if (!chosen) return;
      ring.setAttribute("cx", chosen.x);
      ring.setAttribute("cy", chosen.y);
      const box = svg.viewBox.baseVal, unit = svg.clientWidth / box.width;
      tip.style.left = `${Math.max(0, Math.min(chosen.x * unit + 8, svg.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + chosen.y * unit + 10}px`;
    };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / svg.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / unit, y = (event.clientY - box.top) / unit;
      const far = (p) => (p.level ? Math.abs(p.y - y) + 4 : Math.hypot(p.x - x, p.y - y));
      let best = -1;
      points.forEach((p, i) => { if (visible(p) && far(p) < 24 && (best < 0 || far(p) < far(points[best]))) best = i; });
      if (best >= 0 && points[best].level) points[best].x = x;
      show(best);
    };
    svg.classList.add("pointed");
    svg.tabIndex = 0;
    for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, nearest);
    for (const kind of ["pointerleave", "blur"]) svg.addEventListener(kind, () => show(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") show(-1);
      if (!step) return;
      event.preventDefault();
      const other = event.key === "ArrowUp" || event.key === "ArrowDown";
      const from = points[at]?.series;
      let next = at;
      do next += step;
      while (points[next] && (!visible(points[next]) || (other && points[next].series === from)));
      if (points[next]) show(next);
    });
  };

  const legend = (group) => {
    for (const name of group.querySelectorAll(".key > span")) {
      const toggle = button("", "Hide or show", () => {
        const hide = toggle.getAttribute("aria-pressed") === "true";
        toggle.setAttribute("aria-pressed", !hide);
        for (const part of group.querySelectorAll(`figure g[data-series="${name.dataset.series}"]`)) {
          if (hide) part.setAttribute("display", "none");
          else part.removeAttribute("display");
        }
      });
      toggle.setAttribute("aria-pressed", "true");
      toggle.append(...name.childNodes);
      name.append(toggle);
    }
  };

  // The figure with its heading, its legend and colours of its own.
  const whole = (group, figure, svg) => {
    const copy = svg.cloneNode(true), { width, height } = svg.viewBox.baseVal;
    copy.querySelectorAll("[data-own]").forEach((each) => each.remove());
    const place = (text, y, x = 4) => copy.append(make("text", { x, y, fill: "var(--ink)" }, text));
    const titles = [group.querySelector("h3"), figure.querySelector("figcaption")].filter(Boolean);
    titles.forEach((title, i) => place(title.textContent, 13 * (i - titles.length) + 8));
    const names = [...group.querySelectorAll('.key > span:not(:has([aria-pressed="false"]))')];
    names.forEach((name, i) => {
      const line = name.querySelector("line").cloneNode();
      line.setAttribute("transform", `translate(4 ${height + 13 * i + 4})`);
      copy.append(line);
      place(name.textContent.trim(), height + 13 * i + 12, 42);
    });
    const above = 13 * titles.length + 4, whole = height + above + 13 * names.length + 6;
    copy.setAttribute("viewBox", `0 ${-above} ${width} ${whole}`);
    copy.prepend(make("rect", { y: -above, width, height: whole, fill: "var(--page)" }));
    for (const [name, value] of Object.entries({ xmlns: SVG, width: 2 * width, height: 2 * whole })) copy.setAttribute(name, value);
    const probe = document.body.appendChild(document.createElement("i"));
    const resolved = (_, name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    for (const each of [copy, ...copy.querySelectorAll("*")]) {
      for (const attribute of each.attributes) {
        if (attribute.name === "font-family") attribute.value = "sans-serif";
        else if (attribute.name !== "aria-label") attribute.value = attribute.value.replace(/var\((--[\w-]+)\)/g, resolved);
      }
    }
    probe.remove();
    return new XMLSerializer().serializeToString(copy);
  };
  const download = (content, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const picture = (text, name) => {
    const image = new Image();
    image.addEventListener("load", () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => download(blob, "image/png", name));
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  };
  const table = (plotted) => {
    const names = [...new Set(plotted.flatMap((each) => Object.keys(each.columns)))].filter((name) => name !== "column");
    const cell = (value) => {
      if (typeof value !== "string") return value ?? "";
      const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const rows = plotted.flatMap((each) => {
      const columns = names.map((name) => each.columns[name] ?? []);
      const count = Math.max(0, ...columns.map((column) => column.length));
      return [...Array(count).keys()].map((row) => [each.name, ...columns.map((column) => column[row])]);
    });
    return [["series", ...names], ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
  };
  const print = (...parts) => {
    parts.forEach((part) => part?.classList.add("alone"));
    addEventListener("afterprint", () => parts.forEach((part) => part?.classList.remove("alone")), { once: true });
    window.print();
  };

  for (const group of document.querySelectorAll(".group")) {
    legend(group);
    const numbers = JSON.parse(group.dataset.plotted).map((figure) =>
      figure.map(([name, style, place, columns, rows]) => ({ name, style, place, columns, rows })));
    group.querySelectorAll("figure").forEach((figure, index) => {
      const svg = figure.querySelector("svg"), name = figure.dataset.file;
      point(figure, svg, numbers[index]);
      const row = document.createElement("div");
      row.className = "actions";
      row.append(
        button("SVG", "Save as SVG", () => download(whole(group, figure, svg), "image/svg+xml", `${name}.svg`)),
        button("PNG", "Save as PNG", () => picture(whole(group, figure, svg), `${name}.png`)),
        button("PDF", "Print or save as PDF", () => print(document.body, figure, group.querySelector(".key"))),
      );
      if (numbers[index].length) {
        row.append(button("CSV", "Copy the numbers", async (event) => {
          const text = table(numbers[index]), pressed = event.currentTarget;
          try {
            await navigator.clipboard.writeText(text);
            pressed.textContent = "Copied";
            setTimeout(() => { pressed.textContent = "CSV"; }, 1500);
          } catch {
            download(text, "text/csv", `${name}.csv`);
          }
        }));
      }
      figure.append(row);
    });
  }
})();
