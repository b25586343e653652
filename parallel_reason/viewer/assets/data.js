"use strict";
// What the page carries: an index, and traces in chunks that are unpacked when one of them is looked at.

async function unpackText(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const store = { index: null, chunks: new Map() };
const CHUNKS_KEPT = 12;

async function loadIndex() {
  const index = JSON.parse(await unpackText("index"));
  for (const vocabulary of index.vocabularies) {
    const [ids, texts] = vocabulary.texts;
    vocabulary.texts = new Map(ids.map((id, at) => [id, texts[at]]));
    vocabulary.pairs = new Map(vocabulary.pairs.map(([before, id, text]) => [`${before},${id}`, text]));
    vocabulary.control = new Set(vocabulary.control);
    const tags = [...vocabulary.tags].sort((a, b) => b.length - a.length);
    vocabulary.tag = tags.length ? new RegExp(tags.map((tag) => tag.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "g") : null;
  }
  store.index = index;
  return index;
}

async function loadTrace(row) {
  const number = store.index.columns.chunk[row];
  let chunk = store.chunks.get(number);
  store.chunks.delete(number);
  chunk ??= unpackText(`chunk-${number}`).then(JSON.parse);
  store.chunks.set(number, chunk);
  if (store.chunks.size > CHUNKS_KEPT) store.chunks.delete(store.chunks.keys().next().value);
  const trace = (await chunk)[store.index.columns.at[row]];
  trace.words = trace.tk === undefined ? null : store.index.vocabularies[trace.tk];
  return trace;
}

// The text of each token of a span.
function pieces(trace, span) {
  const { texts, pairs } = trace.words;
  return span.x ?? span.i.map((id, at) => pairs.get(`${span.i[at - 1]},${id}`) ?? texts.get(id) ?? "");
}

const length = (span) => span.i.length + (span.cut ?? 0);
