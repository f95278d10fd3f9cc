/** The library on a plane. The list beside it has the same for the keyboard and for readers. */

import { shape } from "./dom.js";

const MARGIN = 22;

/** A drawing of the adapters of a map; `onChoose` gets the id of the one that is clicked. */
export class Map2D {
  constructor(drawing, { adapters, query }, onChoose) {
    this.drawing = drawing;
    [...drawing.children].slice(1).forEach((child) => child.remove()); // all but its title
    const place = placing(drawing, query ? [...adapters, query] : adapters);
    this.circles = new Map(
      adapters.map((adapter) => [adapter.id, this.#circle(adapter, place, onChoose)]),
    );
    if (query) this.#cross(place(query));
    this.labels = [];
  }

  /** Mark the adapters that a search found, with their number in the list. */
  mark(ids) {
    this.labels.forEach((label) => label.remove());
    this.circles.forEach((circle) => circle.classList.remove("found"));
    this.labels = ids
      .filter((id) => this.circles.has(id))
      .map((id) => {
        const circle = this.circles.get(id);
        circle.classList.add("found");
        const x = Number(circle.getAttribute("cx"));
        const y = Number(circle.getAttribute("cy")) - 10;
        return shape(this.drawing, "text", { x, y }, String(ids.indexOf(id) + 1));
      });
  }

  /** Mark the adapter that is shown. */
  choose(id) {
    this.circles.forEach((circle, own) => circle.classList.toggle("chosen", own === id));
  }

  #circle(adapter, place, onChoose) {
    const [cx, cy] = place(adapter);
    const circle = shape(this.drawing, "circle", { cx, cy, r: 6.5 });
    shape(circle, "title", {}, adapter.task);
    circle.addEventListener("click", () => onChoose(adapter.id));
    return circle;
  }

  #cross([x, y]) {
    shape(this.drawing, "path", { class: "query", d: `M${x - 8} ${y}h16M${x} ${y - 8}v16` });
  }
}

/** From a point of the map to one of the drawing, with one scale for both axes. */
function placing(drawing, points) {
  const { width, height } = drawing.viewBox.baseVal;
  const range = (name) => {
    const values = points.map((point) => point[name]);
    return [
      values.reduce((a, b) => Math.min(a, b), Infinity),
      values.reduce((a, b) => Math.max(a, b), -Infinity),
    ];
  };
  const [left, right] = range("x"),
    [low, high] = range("y");
  const scale = Math.min(
    (width - 2 * MARGIN) / (right - left || 1),
    (height - 2 * MARGIN) / (high - low || 1),
  );
  return ({ x, y }) => [
    (width / 2 + (x - (left + right) / 2) * scale).toFixed(1) * 1,
    (height / 2 - (y - (low + high) / 2) * scale).toFixed(1) * 1,
  ];
}
