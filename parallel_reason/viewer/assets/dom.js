"use strict";
// Elements are built by these two alone; strings become text nodes, never markup.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Model text inside an element of its own, so that its direction stays inside.
function quoted(text, most) {
  return el("bdi", { class: "model" }, oneLine(text, most));
}

const SIGNS = { finished: "✓", length: "✂", cancelled: "⊘", failed: "✗" };

function statusChip(status, why) {
  return el("span", { class: `chip st-${status}`, title: visible(why || "") }, `${SIGNS[status] || "?"} ${status}`);
}

function verdictChip(correct) {
  if (correct === null || correct === undefined) return null;
  return el("span", { class: `chip ${correct ? "right" : "wrong"}` }, correct ? "✓ right" : "✗ wrong");
}
