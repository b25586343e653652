"use strict";
// What timelines are drawn with: the distance of ticks, and the patterns that tell phases apart.

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least || 1));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= least);
}

// Told apart without colour too: decoding is plain, queueing hatched, waiting dotted.
function patterns() {
  return svg(
    "defs",
    {},
    svg(
      "pattern",
      { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-ground", width: 6, height: 6 }),
      svg("rect", { class: "hatch-line", width: 3, height: 6 })
    ),
    svg(
      "pattern",
      { id: "dots", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
      svg("rect", { class: "dots-ground", width: 6, height: 6 }),
      svg("circle", { class: "dots-dot", cx: 3, cy: 3, r: 1.3 })
    )
  );
}
