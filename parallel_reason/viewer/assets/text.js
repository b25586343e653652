"use strict";
// Text of models for people: nothing in it is markup, and nothing in it is invisible.

// Control characters, marks that turn the direction of text around, and others without a shape of their own.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

function visible(text) {
  return text.replace(UNSEEN, (mark) => `⟨U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

function oneLine(text, most = 200) {
  const line = visible(text.replace(/\s+/g, " ").trim());
  return line.length > most ? line.slice(0, most) + "…" : line;
}

const GROUPED = new Intl.NumberFormat("en");

function count(number) {
  return number === null || number === undefined ? "?" : GROUPED.format(number);
}

function counted(number, thing) {
  return `${count(number)} ${thing}${number === 1 ? "" : "s"}`;
}

function seconds(value) {
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toPrecision(3)} ms`;
  return value < 100 ? `${value.toPrecision(3)} s` : `${count(Math.round(value))} s`;
}

// A figure of the table, with its interval.
function figureText(figure) {
  const shown = (value) => (figure.percent ? `${(100 * value).toFixed(figure.digits)}%` : GROUPED.format(Number(value.toFixed(figure.digits))));
  if (figure.value === null) return ["–", ""];
  return [shown(figure.value), figure.low === null ? "" : `[${shown(figure.low)}, ${shown(figure.high)}]`];
}
