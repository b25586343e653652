"use strict";
// A list of any length, of which only the rows on screen are in the document.

class List {
  constructor(rowHeight, drawRow, name) {
    this.rowHeight = rowHeight;
    this.drawRow = drawRow; // (item, isChosen) => element
    this.items = [];
    this.chosen = 0;
    this.sheet = el("div", { class: "sheet" });
    this.element = el("div", { class: "list", tabindex: 0, role: "listbox", "aria-label": name,
      onscroll: () => this.redraw(), onkeydown: (event) => this.key(event) }, this.sheet);
    new ResizeObserver(() => this.redraw()).observe(this.element);
  }

  set(items) {
    this.items = items;
    this.chosen = 0;
    this.element.scrollTop = 0;
    this.redraw();
  }

  redraw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      const first = Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight) - 6);
      const last = Math.min(this.items.length, first + Math.ceil(this.element.clientHeight / this.rowHeight) + 12);
      this.sheet.style.height = `${this.items.length * this.rowHeight}px`;
      const rows = [];
      for (let at = first; at < last; at++) {
        const row = this.drawRow(this.items[at], at === this.chosen);
        row.style.top = `${at * this.rowHeight}px`;
        row.style.height = `${this.rowHeight}px`;
        rows.push(row);
      }
      this.sheet.replaceChildren(...rows);
    });
  }

  key(event) {
    const page = Math.floor(this.element.clientHeight / this.rowHeight) - 1;
    const to = { ArrowDown: this.chosen + 1, ArrowUp: this.chosen - 1, PageDown: this.chosen + page, PageUp: this.chosen - page, Home: 0, End: this.items.length - 1 }[event.key];
    if (event.key === "Enter") { this.sheet.querySelector(".on")?.click(); return; }
    if (to === undefined) return;
    event.preventDefault();
    this.chosen = Math.min(this.items.length - 1, Math.max(0, to));
    const top = this.chosen * this.rowHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > this.element.scrollTop + this.element.clientHeight) this.element.scrollTop = top + this.rowHeight - this.element.clientHeight;
    this.redraw();
  }
}
